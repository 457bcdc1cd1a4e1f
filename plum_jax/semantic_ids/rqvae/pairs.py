"""Batches of items, each beside one that is co-watched with it, drawn so that popular items do not take them all."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np
import polars as pl

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class CoWatched:
    """Who is watched with whom, as rows to draw from.

    Attributes:
      offsets: int64 [N + 1], partners of item a are offsets[a]..offsets[a + 1].
      partners: int32.
      cumulative: float64, running sum of the partners' weights over all items.
    """

    offsets: np.ndarray
    partners: np.ndarray
    cumulative: np.ndarray

    @classmethod
    def from_pairs(cls, pairs: pl.DataFrame, num_items: int, popularity_exponent: float) -> CoWatched:
        """Weights of partners: p(b | a) ~ count(a, b) / co-watches(b)^popularity_exponent.

        Args:
          pairs: "item_a", "item_b", "count", each pair once.
          num_items: N.
          popularity_exponent: 0 draws as users watched; 1 draws a partner as often as it is surprising, not popular.
        """
        a, b, count = (pairs[column].to_numpy() for column in ("item_a", "item_b", "count"))
        first, second, counts = np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([count, count])
        popularity = np.bincount(first, weights=counts, minlength=num_items)
        order = np.argsort(first, kind="stable")
        weights = counts[order] / popularity[second[order]] ** popularity_exponent
        offsets = np.concatenate([[0], np.cumsum(np.bincount(first, minlength=num_items))])
        return cls(offsets, second[order].astype(np.int32), np.cumsum(weights, dtype=np.float64))

    def draw(self, items: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A partner int32 [P] for each item, and whether there is one, bool [P]; where there is none, any item."""
        start, stop = self.offsets[items], self.offsets[items + 1]
        found = stop > start
        below, above = self._weight_before(start), self._weight_before(stop)
        at = below + rng.random(len(items)) * (above - below)
        place = np.clip(np.searchsorted(self.cumulative, at, side="right"), start, np.maximum(stop - 1, start))
        anybody = rng.integers(0, len(self.offsets) - 1, len(items))
        partner = self.partners[np.minimum(place, len(self.partners) - 1)] if len(self.partners) else anybody
        return np.where(found, partner, anybody).astype(np.int32), found

    def _weight_before(self, places: np.ndarray) -> np.ndarray:
        """float64, the sum of the weights before each place. (Zeros put before `cumulative` would copy all of it.)"""
        if not len(self.cumulative):
            return np.zeros(places.shape)
        return np.where(places > 0, self.cumulative[places - 1], 0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class ItemBatches:
    """Endless batches of items: every item once an epoch, with a co-watched partner where `co_watched` is given.

    Attributes:
      blocks, present: float32 [N, D_m] and bool [N] of each block.
      rows: P, items (or pairs) in a batch.
      seed: of order and partners.
      co_watched: who may be a partner of whom; None: no partners.
    """

    blocks: tuple[np.ndarray, ...]
    present: tuple[np.ndarray, ...]
    rows: int
    seed: int
    co_watched: CoWatched | None = None

    def make_iterator(self) -> ItemIterator:
        """A fresh iterator at the start; it never ends."""
        return ItemIterator(self)

    def batch(self, number: int) -> Batch:
        """Batch `number`, as a function of it alone: [P, S, ...] with S = 2 where there are partners."""
        num_items = len(self.blocks[0])
        epoch, in_epoch = divmod(number, num_items // self.rows)
        order = _permutation(self.seed, epoch, num_items)
        items = order[in_epoch * self.rows : (in_epoch + 1) * self.rows].astype(np.int32)[:, None]
        facts: Batch = {}
        if self.co_watched is not None:
            partners, paired = self.co_watched.draw(items[:, 0], np.random.default_rng([self.seed, 1, number]))
            items = np.stack([items[:, 0], partners], axis=1)
            facts = {"item": items, "paired": paired}
        blocks = {f"block_{m}": block[items] for m, block in enumerate(self.blocks)}
        return {**facts, **blocks, **{f"present_{m}": present[items] for m, present in enumerate(self.present)}}


class ItemIterator(grain.DatasetIterator[Batch]):
    """Iterator over `ItemBatches`; its state is the number of the next batch."""

    def __init__(self, batches: ItemBatches) -> None:
        super().__init__()
        self._batches = batches
        self._next_batch = 0

    def get_state(self) -> dict[str, Any]:
        """{"batch": int}: the number of the next batch."""
        return {"batch": self._next_batch}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to where `get_state` was taken."""
        self._next_batch = int(state["batch"])

    def __next__(self) -> Batch:
        self._next_batch += 1
        return self._batches.batch(self._next_batch - 1)


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(size)
