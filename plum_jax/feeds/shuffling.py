"""Global shuffles as functions of position: another order in each epoch, nothing to save but the position."""

from __future__ import annotations

import functools
from typing import Any

import grain
import numpy as np


def shuffled(indices: grain.MapDataset, seed: int) -> grain.MapDataset:
    """`indices` in another order in each epoch, as a function of position."""
    # Grain's shuffle needs no memory, but walks a domain of 2^16: 3 us an index at that size, 190 us at 100, 3 ms at 5.
    return indices.seed(seed).shuffle() if len(indices) >= 1 << 16 else SmallShuffle(indices, seed)


class SmallShuffle(grain.MapDataset[int]):
    """A shuffle that keeps the permutation of one epoch."""

    def __init__(self, parent: grain.MapDataset, seed: int) -> None:
        super().__init__(parent)
        self._permutation = functools.lru_cache(maxsize=2)(
            lambda epoch: np.random.default_rng([seed, epoch]).permutation(len(parent)).tolist()
        )

    def __len__(self) -> int:
        return len(self._parent)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        epoch, place = divmod(index, len(self))
        return self._parent[self._permutation(epoch)[place]]


def fold_seed(seed: int, number: int) -> int:
    """A 32-bit seed for stream `number`; Grain's own seeds count up by epoch, so neighbours would repeat each other."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
