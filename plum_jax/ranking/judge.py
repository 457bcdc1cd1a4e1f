"""The one judge of rankers: validation and test events scored once, figures with errors, differences by pairs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import FOLDS
from plum_jax.evaluation.files import write_frame
from plum_jax.evaluation.metrics.classification import classification_metrics
from plum_jax.evaluation.metrics.classification_differences import DRAWS, delong_difference, user_bootstrap
from plum_jax.ranking.labels import Label, LabelledEvents
from plum_jax.ranking.protocol import FittedRanker, Ranker
from plum_jax.stages import Stages
from plum_jax.training.run_record import run_record

FOLDER = "evaluation"


def judged(
    stages: Stages, label: Label, name: str, ranker: Ranker, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The row in `evaluation/<name>.json` and the logits in `<name>.events.parquet`; made unless
    both are there from the same inputs.

    Figures of the test events bear the names of `classification_metrics`, those of the validation events "validation_"
    before them.

    Args:
      stages: shared by all rankers of the comparison.
      label: what is predicted.
      name: of the row.
      ranker: is trained, where it is not yet.
      facts: what all rows of the comparison say besides.
    """
    fitted, path = ranker.fit(stages, label, name), stages.directory / FOLDER / f"{name}.json"
    fingerprint = artifact.fingerprint(stages.split.fingerprint, label, fitted.fingerprint)
    if path.exists() and events_path(path).exists():
        stored = json.loads(path.read_text())
        if stored["fingerprint"] == fingerprint:
            return stored["row"]
    start = time.perf_counter()
    frame = scored_events(label.of(stages.split), fitted)
    seconds = time.perf_counter() - start
    metrics: dict[str, float] = {}
    for fold in FOLDS:
        figures = classification_metrics(*arrays_of(frame, fold))
        metrics |= {f"{'validation_' if fold == 'validation' else ''}{key}": value for key, value in figures.items()}
    said = {**(facts or {}), **fitted.facts, "events_per_second": round(frame.height / seconds, 1)}
    said["wall_seconds"] = round(said.get("train_seconds", 0.0) + time.perf_counter() - start, 1)
    row = run_record(name, metrics, config=artifact.fingerprint(stages.data, label, ranker), **said)
    write_frame(events_path(path), frame)
    # The row last: where it is, the events are.
    artifact.write_json(path, {"fingerprint": fingerprint, "row": row})
    return row


def scored_events(events: LabelledEvents, fitted: FittedRanker) -> pl.DataFrame:
    """A row a labelled event of validation and test: "event" (its row of the corpus), "fold", "user_id", "item_id",
    "label" and "logit".

    Raises:
      ValueError: not one finite logit for each event.
    """
    rows = np.concatenate([events.rows[fold] for fold in FOLDS])
    logits = np.asarray(fitted.scores(rows), np.float32)
    if logits.shape != rows.shape or not np.isfinite(logits).all():
        raise ValueError(
            f"expected {len(rows)} finite scores of {type(fitted).__name__}, got shape {logits.shape} with "
            f"{int((~np.isfinite(logits)).sum())} that are not"
        )
    corpus = events.split.corpus
    some = corpus.events[rows]
    return pl.DataFrame(
        {
            "event": rows,
            "fold": [fold for fold in FOLDS for _ in range(len(events.rows[fold]))],
            "user_id": corpus.users["user_id"].gather(some["user"]),
            "item_id": corpus.items["item_id"].gather(some["item"]),
            "label": events.label[rows],
            "logit": logits,
        }
    )


def arrays_of(frame: pl.DataFrame, fold: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, logits and users (numbers) of the events of a fold."""
    some = frame.filter(pl.col("fold") == fold)
    users = np.unique(some["user_id"].to_numpy(), return_inverse=True)[1]
    return some["label"].to_numpy(), some["logit"].to_numpy(), users


def differences(first: pl.DataFrame, second: pl.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> dict[str, float]:
    """What a ranker's test figures differ by from its base's, on the same events.

    "auc_difference" with "_low" and "_high" (95%, users drawn anew) and "_p", the same of "gauc" and "log_loss", and
    "auc_difference_delong_low", "_high" and "_p", which take events for independent.

    Raises:
      ValueError: not the same events with the same labels.
    """
    keys = ["event", "fold", "label"]
    if not first.select(keys).equals(second.select(keys)):
        raise ValueError(
            f"expected two rankers scored on the same events with the same labels, got {first.height} and "
            f"{second.height} rows that differ: judge both in one run"
        )
    labels, logits, users = arrays_of(first, "test")
    of_base = arrays_of(second, "test")[1]
    found = {}
    for name, difference in user_bootstrap(labels, logits, of_base, users, draws=draws, seed=seed).items():
        found[f"{name}_difference"] = difference.mean
        found |= {f"{name}_difference_{key}": getattr(difference, key) for key in ("low", "high")}
        found[f"{name}_difference_p"] = difference.p_value
    delong = delong_difference(labels, logits, of_base)
    found |= {f"auc_difference_delong_{key}": getattr(delong, key) for key in ("low", "high")}
    return found | {"auc_difference_delong_p": delong.p_value}


def events_path(evaluation: epath.PathLike) -> epath.Path:
    """Where the logits of `evaluation/<name>.json` lie."""
    path = epath.Path(evaluation)
    return path.parent / f"{path.stem}.events.parquet"


def read_events(directory: epath.PathLike, name: str) -> pl.DataFrame:
    """The scored events of a judged ranker of a run.

    Raises:
      ArtifactError: there are none.
    """
    path = events_path(epath.Path(directory) / FOLDER / f"{name}.json")
    if not path.exists():
        raise artifact.ArtifactError(f"there is no {path}: expected the scores of a ranker, made by gin/run/rank.gin")
    with path.open("rb") as file:
        return pl.read_parquet(file)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Test figures with standard errors over users, and the differences that there are, as text."""
    names = ("auc", "gauc", "log_loss", "validation_auc")
    lines = [f"{'test events':24s}" + "".join(f"{name.replace('_', ' '):>18s}" for name in names)]
    for row in rows:
        cells = (f"{row[name]:.4f} ± {row[f'{name}_se']:.4f}" if name in row else "-" for name in names)
        lines.append(f"{row['name']:24s}" + "".join(f"{cell:>18s}" for cell in cells))
    for row in (row for row in rows if "base" in row):
        lines.append(f"\n{row['name']} - {row['base']}, 95% intervals over users")
        for name in (name for name in names if f"{name}_difference" in row):
            key = f"{name}_difference"
            interval = f"[{row[f'{key}_low']:+.4f}, {row[f'{key}_high']:+.4f}]"
            lines.append(f"  {name:12s}{row[key]:+.4f} {interval}, p = {row[f'{key}_p']:.4f}")
    return "\n".join(lines)
