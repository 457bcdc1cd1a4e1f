"""Detection of rare events: average precision and recall at a fixed rate of false positives, with intervals over users.

Both are functions of how often each user counts, so that a bootstrap that draws users with all their events costs no
new sorting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from plum_jax.evaluation.metrics.classification import checked


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean over events of label 1 of the precision among the events that score as high or higher; ties count together.

    Args:
      labels: 0 or 1, [n].
      scores: [n].

    Raises:
      ValueError: one label only.
    """
    return float(Detection(labels, scores, np.arange(len(labels))).figures(np.ones(len(labels)), ())[0])


def recall_at_false_positives(labels: np.ndarray, scores: np.ndarray, rate: float) -> float:
    """Share of the events of label 1 above the lowest threshold that at most `rate` of those of label 0 reach.

    Raises:
      ValueError: one label only.
    """
    return float(Detection(labels, scores, np.arange(len(labels))).figures(np.ones(len(labels)), (rate,))[1])


class Detection:
    """One model's figures as a function of how often each user is drawn."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> None:
        """Args:
        labels: 0 or 1, [n].
        scores: [n].
        users: int [n], who is drawn with all events.

        Raises:
          ValueError: as `classification.checked`.
        """
        positive = checked(labels, scores)
        order = np.argsort(-np.asarray(scores), kind="stable")
        self._positive = positive[order].astype(np.float64)
        present, user = np.unique(users, return_inverse=True)
        self.num_users, self._user = len(present), user[order]
        # Places of the last event of each run of equal scores: a threshold takes all of them or none.
        ordered = np.asarray(scores)[order]
        self._ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
        self._thresholds = ordered[self._ends]

    def figures(self, times: np.ndarray, rates: Sequence[float]) -> np.ndarray:
        """float64 [1 + rates]: average precision, and recall at each rate of false positives; NaN where a label is
        missing.

        Args:
          times: float [U], how often each user counts.
          rates: of false positives.
        """
        hits, false = self._cumulative(times)
        if not (hits[-1] > 0 and false[-1] > 0):
            return np.full(1 + len(rates), np.nan)
        precision = hits / np.maximum(hits + false, 1e-12)
        found = [float(np.sum(np.diff(hits, prepend=0.0) * precision) / hits[-1])]
        return np.array(found + [hits[place] / hits[-1] if place >= 0 else 0.0 for place in self._places(false, rates)])

    def threshold(self, rate: float) -> float:
        """The lowest score that at most `rate` of the events of label 0 reach; infinite where the highest is too
        many.
        """
        (place,) = self._places(self._cumulative(np.ones(self.num_users))[1], (rate,))
        return float(self._thresholds[place]) if place >= 0 else float("inf")

    def _cumulative(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weight = times[self._user]
        hits = np.cumsum(weight * self._positive)[self._ends]
        return hits, np.cumsum(weight)[self._ends] - hits

    @staticmethod
    def _places(false: np.ndarray, rates: Sequence[float]) -> list[int]:
        """Of each rate, the last threshold whose false positives are not too many; -1: none."""
        # Sums of weights in another order may differ in the last digit.
        return [int(np.searchsorted(false, rate * false[-1] * (1 + 1e-9), side="right")) - 1 for rate in rates]


@dataclasses.dataclass(frozen=True)
class Draws:
    """How often each user counts in each draw of a bootstrap, the same for all models.

    Attributes:
      number: of draws.
      seed: of the draws.
    """

    number: int = 300
    seed: int = 0

    def figures(self, detection: Detection, rates: Sequence[float]) -> np.ndarray:
        """float64 [draws, 1 + rates]: `Detection.figures` of users drawn with replacement."""
        random, count = np.random.default_rng(self.seed), detection.num_users
        return np.array(
            [
                detection.figures(np.bincount(random.integers(0, count, count), minlength=count).astype(float), rates)
                for _ in range(self.number)
            ]
        )


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """Of 95%, of a figure's draws."""
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def card_precision(labels: np.ndarray, scores: np.ndarray, users: np.ndarray, days: np.ndarray, k: int) -> float:
    """Of the k users whose highest score of a day is highest, the share with an event of label 1 on that day; the mean
    over days (the Fraud Detection Handbook's card precision, but that users stay in who were found before).

    Args:
      labels, scores: [n].
      users, days: int [n].
      k: at most so many a day; fewer where a day has fewer users.
    """
    found = []
    for day in np.unique(days):
        here = np.flatnonzero(days == day)
        present, user = np.unique(users[here], return_inverse=True)
        highest, fraud = np.full(len(present), -np.inf), np.zeros(len(present))
        np.maximum.at(highest, user, scores[here])
        np.maximum.at(fraud, user, labels[here])
        found.append(fraud[np.argsort(-highest, kind="stable")[:k]].mean())
    return float(np.mean(found))
