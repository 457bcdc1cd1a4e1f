"""Classifiers judged on the queries of a fold: precision, recall and first hits, head, torso and tail apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from plum_jax.evaluation.metrics import paired_bootstrap
from plum_jax.query_understanding.classifier import FittedClassifier
from plum_jax.query_understanding.log import BANDS, QueryLog

METRICS = ("hit@1", "precision", "recall", "hit@1_level_2")
_THRESHOLDS = np.round(np.arange(0.05, 0.65, 0.05), 2)
ALL, NEW = "all", "new"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which classes a query is given: those of a share of `threshold` or more, `most` at most, and the first at least.

    Attributes:
      threshold: of a share.
      most: classes of a query.
    """

    threshold: float
    most: int = 5

    def of(self, shares: np.ndarray) -> np.ndarray:
        """bool [n, C] of shares float32 [n, C]."""
        order = np.argsort(-shares, axis=1, kind="stable")
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.arange(shares.shape[1])[None], axis=1)
        return (place == 0) | ((place < self.most) & (shares >= self.threshold))


def best_threshold(shares: np.ndarray, truth: np.ndarray) -> float:
    """The threshold of the highest mean F1 over queries, of 0.05, 0.1, ... 0.6; the lowest of equals."""
    scores = []
    for threshold in _THRESHOLDS:
        precision, recall = _precision_recall(Choice(float(threshold)).of(shares), truth)
        scores.append(np.mean(2 * precision * recall / np.maximum(precision + recall, 1e-9)))
    return float(_THRESHOLDS[int(np.argmax(scores))])


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """A classifier's figures, query by query.

    Attributes:
      queries: int64 [n], numbers in the log.
      values: name of a metric -> float64 [n].
      threshold: that was chosen.
    """

    queries: np.ndarray
    values: Mapping[str, np.ndarray]
    threshold: float


def judged(log: QueryLog, fitted: FittedClassifier, at_most: int | None = None) -> Judged:
    """Figures of each test query, with the threshold that is best on validation queries.

    What is to be found are the classes of all items that were taken after the query in the test fold; every query
    counts once. "precision" and "recall" are of the classes that `Choice` gives, "hit@1" says whether the first of them
    is to be found, "hit@1_level_2" the same of the categories of level 2, whose shares are the sums of those below.

    Args:
      log: the queries.
      fitted: the classifier.
      at_most: queries of a fold; None: all.
    """
    asked, truth = log.truth("validation", at_most)
    threshold = best_threshold(fitted.shares([log.texts[query] for query in asked]), truth)
    asked, truth = log.truth("test", at_most)
    shares = fitted.shares([log.texts[query] for query in asked])
    precision, recall = _precision_recall(Choice(threshold).of(shares), truth)
    upwards = level_matrix(log, 2)
    values = {
        "hit@1": _first_hits(shares, truth),
        "precision": precision,
        "recall": recall,
        "hit@1_level_2": _first_hits(shares @ upwards, truth.astype(np.float32) @ upwards > 0),
    }
    return Judged(asked, values, threshold)


def level_matrix(log: QueryLog, level: int) -> np.ndarray:
    """float32 [C, G], 1 where a class is of a category of a level or below it (or stands higher itself)."""
    groups, of_class = np.unique(log.taxonomy.at_level(level)[log.classes], return_inverse=True)
    found = np.zeros((log.num_classes, len(groups)), np.float32)
    found[np.arange(log.num_classes), of_class] = 1.0
    return found


def groups_of(log: QueryLog, queries: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of queries int [n]: all, each band, and those that training has not seen ("new", part of the tail)."""
    rows = {band: np.flatnonzero(log.band[queries] == number) for number, band in enumerate(BANDS)}
    return {ALL: np.arange(len(queries)), **rows, NEW: np.flatnonzero(log.frequency[queries] == 0)}


def means(log: QueryLog, found: Judged) -> dict[str, Any]:
    """ "<band>_<metric>" with its standard error "_se", and "<band>_queries"."""
    row: dict[str, Any] = {"threshold": found.threshold}
    for group, rows in groups_of(log, found.queries).items():
        row[f"{group}_queries"] = len(rows)
        for name in METRICS if len(rows) else ():
            values = found.values[name][rows]
            row[f"{group}_{name}"] = float(values.mean())
            row[f"{group}_{name}_se"] = float(values.std() / np.sqrt(len(values)))
    return row


def differences(log: QueryLog, found: Judged, base: Judged, base_name: str) -> dict[str, float]:
    """ "<band>_<metric>_over_<base_name>", of the same queries, with its 95% interval "_low" and "_high"."""
    row: dict[str, float] = {}
    for group, rows in groups_of(log, found.queries).items():
        for name in METRICS if len(rows) else ():
            one = paired_bootstrap(found.values[name][rows], base.values[name][rows])
            row |= one.named(f"{group}_{name}_over_{base_name}")
    return row


def _first_hits(shares: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return truth[np.arange(len(truth)), shares.argmax(axis=1)].astype(np.float64)


def _precision_recall(given: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    right = (given & truth).sum(axis=1)
    return right / given.sum(axis=1), right / truth.sum(axis=1)
