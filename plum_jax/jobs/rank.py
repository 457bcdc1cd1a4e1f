"""The job that compares rankers: models of one label of an event."""

from __future__ import annotations

from collections.abc import Mapping

from plum_jax import artifact
from plum_jax.evaluation.base import require_base
from plum_jax.ranking import judge
from plum_jax.ranking.labels import Label, LabelledEvents
from plum_jax.ranking.protocol import Ranker
from plum_jax.stages import Data
from plum_jax.training.run_record import write_results


def rank_events(
    model_dir: str,
    data: Data,
    label: Label,
    rankers: Mapping[str, Ranker],
    base: Mapping[str, str] | None = None,
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Trains rankers on the same labels, judges them on the same events, and compares each with its base.

    `evaluation/<name>.json` and `<name>.events.parquet` of each, all rows in `results.jsonl`, and a table.

    Args:
      model_dir: of the run.
      data: what the rankers share.
      label: what is predicted.
      rankers: name of a row -> ranker, in the order of the table.
      base: name of a ranker -> name of the one that it is compared with; None: no differences.
      seed: of the run, in the rows of rankers that have none of their own, and of the bootstrap.
      results_file: a study's `results.jsonl` that also gets the rows.

    Raises:
      ValueError: no ranker, or a base that is none of them.
    """
    base = base or {}
    if not rankers:
        raise ValueError("expected at least one ranker to judge, got none: set RANKERS")
    require_base(base, rankers)
    stages = data.stages(model_dir)
    events = label.of(stages.split)
    print(f"{stages.corpus.name}: {_counts(events)}")
    common = {"data": stages.corpus.name, "seed": seed, "label": artifact.describe(label)}
    common["unlabelled_events"] = events.unlabelled
    rows = [judge.judged(stages, label, name, ranker, common) for name, ranker in rankers.items()]
    scored = {name: judge.read_events(stages.directory, name) for name in {*base, *base.values()}}
    for row in rows:
        if row["name"] in base:
            other = base[row["name"]]
            found = judge.differences(scored[row["name"]], scored[other], seed=seed)
            row |= {"base": other, **found}
    write_results(stages.directory, rows, results_file)
    print(judge.table(rows))


def _counts(events: LabelledEvents) -> str:
    folds = (f"{len(rows):,} {name} ({events.label[rows].mean():.1%} of label 1)" for name, rows in events.rows.items())
    return f"{', '.join(folds)}; {events.unlabelled:,} events without a label"
