"""Beams as a ranking that the evaluator judges."""

from __future__ import annotations

import numpy as np

from plum_jax.evaluation.metrics import RankedItems, target_ranks
from plum_jax.evaluation.system import Ranking
from plum_jax.ragged import Ragged
from plum_jax.retrieval.recommend import rank_items
from plum_jax.semantic_ids.table import SidTable


def ranking_of(
    codes: np.ndarray, log_probs: np.ndarray, table: SidTable, target_items: np.ndarray, k: int, seen: Ragged
) -> Ranking:
    """The first k items of users, with seen items and without, and the place of each target's Semantic ID.

    Args:
      codes: int32 [U, M, L], best first.
      log_probs: float32 [U, M].
      table: says which items have a Semantic ID.
      target_items: int32 [U].
      k: length of the lists.
      seen: items that each user has watched.
    """
    items, _ = rank_items(codes, log_probs, table, k)
    unseen, scores = rank_items(codes, log_probs, table, k, seen)
    sid_ranks = target_ranks(table.lookup(codes), table.lookup(table.codes[target_items]))
    return Ranking(RankedItems(items, unseen), scores, sid_ranks)
