"""The popularity baseline: everybody gets the items with the most training events."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.corpus.splits import EvaluationSet, Split
from plum_jax.evaluation.metrics import NOTHING, RankedItems
from plum_jax.stages import Stages
from plum_jax.systems.training_free import TrainingFree


@dataclasses.dataclass(frozen=True)
class Popularity:
    """Most training events first, item index where they tie."""

    def fit(self, stages: Stages, name: str) -> TrainingFree:
        """There is nothing to train."""
        return TrainingFree(self, stages.split)

    def recommend(self, split: Split, evaluation: EvaluationSet, k: int) -> RankedItems:
        """The first `k` items for each user of the evaluation set."""
        popularity = split.item_popularity
        order = np.argsort(-popularity, kind="stable").astype(np.int32)
        place = np.argsort(order)  # of each item in `order`
        items = np.full((len(evaluation), k), NOTHING, np.int32)
        items[:, : min(k, len(order))] = order[:k]
        unseen = np.full_like(items, NOTHING)
        for row in range(len(evaluation)):
            seen = np.unique(place[evaluation.history(row)])
            # A list of k + |seen| items has at least k that are not seen, unless the catalogue ends before.
            head = np.delete(order[: k + len(seen)], seen[seen < k + len(seen)])[:k]
            unseen[row, : len(head)] = head
        return RankedItems(items, unseen)
