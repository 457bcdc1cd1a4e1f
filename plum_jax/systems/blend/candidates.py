"""The candidates that several lists propose, with one row of numbers for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from plum_jax.evaluation.metrics import NOTHING

# What the constant column holds: large, so that the intercept is a small share of the l1 ball.
CONSTANT = 10.0


class Candidates(NamedTuple):
    """Items that any of S systems proposes to U users, each once a user, by user and item.

    Attributes:
      user: int64 [C], rows of the lists.
      item: int64 [C].
      features: float32 [C, S + 1]: 1 / log2(rank + 2) in each system's list, 0 where it is not there, and a constant.
    """

    user: np.ndarray
    item: np.ndarray
    features: np.ndarray


def candidates_of(lists: Sequence[np.ndarray]) -> Candidates:
    """Candidates of S lists [U, k] of items, best first (`NOTHING`: no item)."""
    width = int(max(items.max(initial=0) for items in lists)) + 1
    keys, discounts = [], []
    for items in lists:
        there = items != NOTHING
        row, rank = np.nonzero(there)
        keys.append(row * width + items[there].astype(np.int64))
        discounts.append(1.0 / np.log2(rank + 2.0))
    every, place = np.unique(np.concatenate(keys), return_inverse=True)
    features = np.zeros((len(every), len(lists) + 1), np.float32)
    features[:, -1] = CONSTANT
    ends = np.cumsum([len(some) for some in keys])[:-1]
    for column, (rows, values) in enumerate(zip(np.split(place, ends), discounts, strict=True)):
        features[rows, column] = values
    return Candidates(every // width, every % width, features)


def best_of(candidates: Candidates, scores: np.ndarray, users: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 [users, k] items with the greatest scores, the lower index where equal, and float32 [users, k] scores."""
    order = np.lexsort((candidates.item, -scores, candidates.user))
    user = candidates.user[order]
    rank = np.arange(len(order)) - np.searchsorted(user, user)
    first = order[rank < k]
    items = np.full((users, k), NOTHING, np.int32)
    values = np.full((users, k), -np.inf, np.float32)
    where = candidates.user[first], rank[rank < k]
    items[where], values[where] = candidates.item[first], scores[first]
    return items, values
