"""The job on payments: trunks are pre-trained, detectors learn from labels, and one judge compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plum_jax import artifact
from plum_jax.evaluation.base import require_base
from plum_jax.evaluation.metrics.detection import Draws
from plum_jax.payments import judge
from plum_jax.payments.detector import Detector
from plum_jax.payments.events import KnownLabels, PaymentError, PaymentEvents, Payments
from plum_jax.stages import Data
from plum_jax.training.run_record import write_results


def detect_frauds(
    model_dir: str,
    data: Data,
    payments: Payments,
    detectors: Mapping[str, Detector],
    base: Mapping[str, str] | None = None,
    label_shares: Sequence[float] = (1.0,),
    seed: int = 0,
    draws: int = 300,
    results_file: str | None = None,
) -> None:
    """Trains what the detectors need, then the detectors, judges them on the same payments, and compares each with its
    base.

    `trunks/<name>`, `vectors/<name>`, `detectors/<row>`, `evaluation/<row>.json` and `<row>.events.parquet`, all rows
    in `results.jsonl`, and a table. What is finished is read, what was killed goes on.

    Args:
      model_dir: of the run.
      data: payments and their split.
      payments: roles of the columns.
      detectors: name of a row -> detector, in the order of the table.
      base: name of a detector -> name of the one that it is compared with; None: no differences.
      label_shares: of the customers whose labels are known; the row of a share that is not 1 is called
        "<name>_<share>".
      seed: of the draw of those customers and of the bootstrap, and in the rows of detectors that have none of their
        own.
      draws: of the bootstrap.
      results_file: a study's `results.jsonl` that also gets the rows.

    Raises:
      PaymentError: payments that are not as they must be, no detector, or a base that is none of them.
    """
    base = base or {}
    if not detectors or not label_shares:
        raise PaymentError("expected a detector and a share of labels at least: set DETECTORS and LABEL_SHARES")
    require_base(base, detectors, PaymentError)
    stages, bootstrap = data.stages(model_dir), Draws(draws, seed)
    events = payments.of(stages.split)
    print(f"{stages.corpus.name}: {_counts(events)}")
    rows: list[dict[str, Any]] = []
    for share in label_shares:
        labels = KnownLabels(events, share, seed)
        common = {
            "data": stages.corpus.name,
            "seed": seed,
            "payments": artifact.describe(payments),
            "label_share": share,
            "labelled_payments": len(labels.training_rows),
            "labelled_frauds": int(events.fraud[labels.training_rows].sum()),
        }
        found = {
            name: judge.judged(labels, stages.directory, row_name(name, share), detector, common, bootstrap)
            for name, detector in detectors.items()
        }
        for name, other in ((name, row_name(base[name], share)) for name in found if name in base):
            differences = judge.differences(stages.directory, row_name(name, share), other, bootstrap)
            found[name] |= {"base": other, **differences}
        rows += found.values()
        # What is finished stands there, whatever becomes of the other shares.
        write_results(stages.directory, rows, results_file)
    print(judge.table(rows))


def row_name(name: str, share: float) -> str:
    """Of a detector with so many labels."""
    return name if share == 1 else f"{name}_{share:g}"


def _counts(events: PaymentEvents) -> str:
    folds = events.labelled.rows.items()
    told = (f"{len(rows):,} {name} ({int(events.fraud[rows].sum()):,} frauds)" for name, rows in folds)
    return f"{', '.join(told)}; labels are {events.config.delay_days:g} days late"
