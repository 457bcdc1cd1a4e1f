"""The one judge of detectors: validation and test payments scored once, figures with intervals over customers."""

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
from plum_jax.evaluation.metrics.classification_differences import drawn_difference
from plum_jax.evaluation.metrics.detection import Detection, Draws, card_precision, interval
from plum_jax.payments.detector import Detector
from plum_jax.payments.events import DAY, KnownLabels
from plum_jax.ranking.judge import FOLDER, arrays_of, events_path, read_events, scored_events
from plum_jax.training.run_record import run_record

RATES = (0.001, 0.01)
CARDS_A_DAY = 100


def judged(
    labels: KnownLabels,
    directory: epath.Path,
    name: str,
    detector: Detector,
    facts: Mapping[str, Any],
    draws: Draws,
) -> dict[str, Any]:
    """The row in `evaluation/<name>.json` and the scores in `<name>.events.parquet`; made unless both are there from
    the same inputs.

    Args:
      labels: what is known.
      directory: of the run.
      name: of the row.
      detector: is trained, where it is not yet.
      facts: what the row says besides.
      draws: of the bootstrap.
    """
    fitted, path = detector.fit(labels, directory, name), directory / FOLDER / f"{name}.json"
    fingerprint = artifact.fingerprint(labels.fingerprint, fitted.fingerprint, draws)
    if path.exists() and events_path(path).exists():
        stored = json.loads(path.read_text())
        if stored["fingerprint"] == fingerprint:
            return stored["row"]
    start = time.perf_counter()
    frame = scored_events(labels.payments.labelled, fitted)
    seconds = time.perf_counter() - start
    metrics = figures_of(frame, labels, draws)
    said = {**facts, **fitted.facts, "events_per_second": round(frame.height / max(seconds, 1e-9), 1)}
    said["wall_seconds"] = round(said.get("train_seconds", 0.0) + time.perf_counter() - start, 1)
    row = run_record(name, metrics, config=artifact.fingerprint(detector, labels.payments.config), **said)
    write_frame(events_path(path), frame)
    # The row last: where it is, the scores are.
    artifact.write_json(path, {"fingerprint": fingerprint, "row": row})
    return row


def figures_of(frame: pl.DataFrame, labels: KnownLabels, draws: Draws) -> dict[str, float]:
    """Of scored payments (`ranking.judge.scored_events`).

    "average_precision" and "recall@fpr<rate>" of the test payments, each with "_low" and "_high" (95%, customers drawn
    anew); the latter for each kind of fraud too, as "recall@fpr<rate>_kind<k>" with "frauds_kind<k>", at the threshold
    of all; "card_precision@100" a day; "validation_average_precision"; "events", "frauds", "customers".
    """
    found: dict[str, float] = {}
    for fold in FOLDS:
        fraud, scores, users = arrays_of(frame, fold)
        detection, prefix = Detection(fraud, scores, users), "validation_" if fold == "validation" else ""
        names = ["average_precision", *(f"recall@fpr{rate:g}" for rate in RATES)]
        values = detection.figures(np.ones(detection.num_users), RATES)
        found |= {f"{prefix}{name}": float(value) for name, value in zip(names, values, strict=True)}
        if fold == "validation":
            continue
        drawn = draws.figures(detection, RATES)
        for place, name in enumerate(names):
            found[f"{name}_low"], found[f"{name}_high"] = interval(drawn[:, place])
        rows = frame.filter(pl.col("fold") == fold)["event"].to_numpy()
        days = labels.payments.time[rows] // DAY
        found[f"card_precision@{CARDS_A_DAY}"] = card_precision(fraud, scores, users, days, CARDS_A_DAY)
        found |= _by_kind(labels, rows, fraud, scores, detection)
        found |= {"events": len(rows), "frauds": int(fraud.sum()), "customers": detection.num_users}
    return found


def _by_kind(
    labels: KnownLabels, rows: np.ndarray, fraud: np.ndarray, scores: np.ndarray, detection: Detection
) -> dict[str, float]:
    if labels.payments.kind is None:
        return {}
    kind, found = labels.payments.kind[rows], dict[str, float]()
    for number in np.unique(kind[fraud > 0]).tolist():
        here = (kind == number) & (fraud > 0)
        found[f"frauds_kind{number}"] = int(here.sum())
        for rate in RATES:
            found[f"recall@fpr{rate:g}_kind{number}"] = float((scores[here] >= detection.threshold(rate)).mean())
    return found


def differences(directory: epath.Path, name: str, base: str, draws: Draws) -> dict[str, float]:
    """What a detector's test figures differ by from its base's, on the same payments and by the same draws: each figure
    "_difference" with "_low", "_high" (95%) and "_p".

    Raises:
      ValueError: not the same payments with the same labels.
    """
    frames = [read_events(directory, one) for one in (name, base)]
    keys = ["event", "fold", "label"]
    if not frames[0].select(keys).equals(frames[1].select(keys)):
        raise ValueError(f"expected {name} and {base} scored on the same payments: judge both in one run")
    detections = [Detection(*arrays_of(frame, "test")) for frame in frames]
    whole = [one.figures(np.ones(one.num_users), RATES) for one in detections]
    drawn = [draws.figures(one, RATES) for one in detections]
    found = {}
    for place, figure in enumerate(["average_precision", *(f"recall@fpr{rate:g}" for rate in RATES)]):
        mean = float(whole[0][place] - whole[1][place])
        apart = drawn_difference(mean, drawn[0][:, place] - drawn[1][:, place])
        found[f"{figure}_difference"] = apart.mean
        found |= {f"{figure}_difference_{key}": getattr(apart, key) for key in ("low", "high")}
        found[f"{figure}_difference_p"] = apart.p_value
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Test figures with their intervals, and the differences that there are, as text."""
    names = ("average_precision", *(f"recall@fpr{rate:g}" for rate in RATES))
    lines = [f"{'test payments':28s}" + "".join(f"{name.replace('_', ' '):>26s}" for name in names)]
    for row in rows:
        cells = (f"{row[name]:.4f} [{row[f'{name}_low']:.4f}, {row[f'{name}_high']:.4f}]" for name in names)
        lines.append(f"{row['name']:28s}" + "".join(f"{cell:>26s}" for cell in cells))
    for row in (row for row in rows if "base" in row):
        lines.append(f"\n{row['name']} - {row['base']}, 95% intervals over customers")
        for name in names:
            key = f"{name}_difference"
            span = f"[{row[f'{key}_low']:+.4f}, {row[f'{key}_high']:+.4f}]"
            lines.append(f"  {name:22s}{row[key]:+.4f} {span}, p = {row[f'{key}_p']:.4f}")
    return "\n".join(lines)
