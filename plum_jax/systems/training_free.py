"""What systems without parameters share once they are fitted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet, Split
from plum_jax.evaluation.metrics import NOTHING, RankedItems
from plum_jax.evaluation.system import Ranking


class Recommends(Protocol):
    """A frozen configuration that counts its training events anew for every call."""

    def recommend(self, split: Split, evaluation: EvaluationSet, k: int) -> RankedItems:
        """The first `k` items for each user of the evaluation set."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingFree:
    """A configuration with the split that it counts.

    Attributes:
      system: how lists are made.
      split: of the comparison.
    """

    system: Recommends
    split: Split

    @property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self.split.fingerprint, self.system)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"parameters": 0}

    def rank(self, evaluation: EvaluationSet, k: int) -> Ranking:
        """The first k items of each user."""
        return Ranking(self.system.recommend(self.split, evaluation, k))


def top_columns(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns (int64 [U, k]) of the greatest scores, best first, the lower where equal; -1 for -inf or no more."""
    num_columns = scores.shape[1]
    kept = min(k, num_columns)
    threshold = np.partition(scores, num_columns - kept, axis=1)[:, num_columns - kept]
    top = np.full((len(scores), k), NOTHING, np.int64)
    for row, (values, limit) in enumerate(zip(scores, threshold, strict=True)):
        above = np.flatnonzero(values > limit)
        best = np.concatenate([above, np.flatnonzero(values == limit)[: kept - len(above)]])
        best = best[np.argsort(-values[best], kind="stable")]
        best = best[values[best] > -np.inf]
        top[row, : len(best)] = best
    return top
