"""Batches of rows in an order of each epoch's own, with a state of one integer."""

from __future__ import annotations

from typing import Any, Protocol

import grain
import numpy as np

from plum_jax.feeds.batches import Batch


class Epochs(Protocol):
    """Rows that are met once an epoch: `ArrayBatches`, `LengthBatches`."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""

    def order(self, epoch: int) -> np.ndarray:
        """int [steps_per_epoch, B], the rows of an epoch's batches, a function of its number alone."""

    def of_rows(self, rows: np.ndarray) -> Batch:
        """The batch of rows int [B]."""


class EpochIterator(grain.DatasetIterator[Batch]):
    """Iterator over `Epochs`, without an end; its state is the number of the next batch."""

    def __init__(self, epochs: Epochs) -> None:
        super().__init__()
        self._epochs = epochs
        self._epoch = -1  # of the order in memory
        self._order = np.zeros((0, 0), np.int64)
        self._next_batch = 0

    def get_state(self) -> dict[str, Any]:
        """{"batch": int}: the number of the next batch."""
        return {"batch": self._next_batch}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where `get_state` was taken."""
        self._next_batch = int(state["batch"])

    def __next__(self) -> Batch:
        epoch, place = divmod(self._next_batch, self._epochs.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._epochs.order(epoch)
        self._next_batch += 1
        return self._epochs.of_rows(self._order[place])
