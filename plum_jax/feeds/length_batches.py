"""Batches of texts of about one length, so that little of a batch is filling."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.feeds.batches import Batch
from plum_jax.feeds.epochs import EpochIterator


@dataclasses.dataclass(frozen=True, eq=False)
class LengthBatches:
    """Batches of "row" int [B], numbers of rows: each once an epoch, but those of an incomplete last batch.

    An epoch is a new order of the rows, cut into windows of `window` batches. The rows of a window are sorted by
    length, and its batches come in a random order; so a batch's lengths are near each other, and no length has a time
    of its own.

    Attributes:
      lengths: int [N].
      batch_size: B.
      seed: of the orders.
      window: batches whose rows are sorted together.
    """

    lengths: np.ndarray
    batch_size: int
    seed: int = 0
    window: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.batch_size <= len(self.lengths):
            raise ValueError(f"expected at least {self.batch_size=} rows, got {len(self.lengths)}")

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self.lengths) // self.batch_size

    def order(self, epoch: int) -> np.ndarray:
        """int [steps_per_epoch, B], the batches of an epoch."""
        random = np.random.default_rng([self.seed, epoch])
        rows = random.permutation(len(self.lengths))[: self.steps_per_epoch * self.batch_size]
        batches = []
        for start in range(0, len(rows), self.window * self.batch_size):
            window = rows[start : start + self.window * self.batch_size]
            window = window[np.argsort(self.lengths[window], kind="stable")].reshape(-1, self.batch_size)
            batches.append(random.permutation(window, axis=0))
        return np.concatenate(batches)

    def of_rows(self, rows: np.ndarray) -> Batch:
        """The batch of these rows: their numbers."""
        return {"row": rows}

    def make_iterator(self) -> EpochIterator:
        """A fresh iterator at the start; it never ends."""
        return EpochIterator(self)
