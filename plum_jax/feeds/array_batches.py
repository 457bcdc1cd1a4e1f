"""Batches of arrays in memory, with a state of one integer; epochs of two kinds by turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import grain
import numpy as np

from plum_jax.feeds.batches import Batch
from plum_jax.feeds.epochs import EpochIterator
from plum_jax.feeds.length_batches import LengthBatches


@dataclasses.dataclass(frozen=True)
class ArrayBatches:
    """Batches of rows of arrays in memory, all [N, ...]: reshuffled each epoch; an incomplete last batch is dropped."""

    arrays: Mapping[str, np.ndarray]
    batch_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = {name: len(array) for name, array in self.arrays.items()}
        if len(set(sizes.values())) != 1 or not 0 < self.batch_size <= min(sizes.values()):
            raise ValueError(f"expected arrays of one length of at least {self.batch_size=}, got {sizes}")

    @property
    def steps_per_epoch(self) -> int:
        """Batches that see every row once, but for those of an incomplete last one."""
        return len(next(iter(self.arrays.values()))) // self.batch_size

    def order(self, epoch: int) -> np.ndarray:
        """int [steps_per_epoch, batch_size], the rows of an epoch's batches."""
        rows = len(next(iter(self.arrays.values())))
        permutation = np.random.default_rng([self.seed, epoch]).permutation(rows)
        return permutation[: self.steps_per_epoch * self.batch_size].reshape(-1, self.batch_size)

    def of_rows(self, rows: np.ndarray) -> Batch:
        """The batch of these rows."""
        return {name: array[rows] for name, array in self.arrays.items()}

    def make_iterator(self) -> EpochIterator:
        """A fresh iterator at the start; it never ends."""
        return EpochIterator(self)


@dataclasses.dataclass(frozen=True)
class MixedEpochs:
    """Epochs of two kinds by turns: one over `first`, one over `second`, and so on, each in its own order.

    The two have the same columns and the same rows of a batch, not as many rows.
    """

    first: ArrayBatches
    second: ArrayBatches

    def __post_init__(self) -> None:
        sizes, names = ([f(part) for part in (self.first, self.second)] for f in (lambda p: p.batch_size, _names))
        if sizes[0] != sizes[1] or names[0] != names[1]:
            raise ValueError(f"expected epochs of one batch_size and the same columns, got {sizes} and {names}")

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""
        return self.first.batch_size

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """The rows of both kinds, one after the other."""
        return {name: np.concatenate([array, self.second.arrays[name]]) for name, array in self.first.arrays.items()}

    @property
    def steps_per_epoch(self) -> float:
        """Batches of an epoch, the mean of the two kinds."""
        return (self.first.steps_per_epoch + self.second.steps_per_epoch) / 2

    def make_iterator(self) -> MixedIterator:
        """A fresh iterator at the start; it never ends."""
        return MixedIterator(self)


def _names(part: ArrayBatches) -> list[str]:
    return sorted(part.arrays)


class MixedIterator(grain.DatasetIterator[Batch]):
    """Iterator over `MixedEpochs`; its state is the number of the next batch."""

    def __init__(self, batches: MixedEpochs) -> None:
        super().__init__()
        self._sizes = batches.first.steps_per_epoch, batches.second.steps_per_epoch
        self._parts = batches.first.make_iterator(), batches.second.make_iterator()
        self._next_batch = 0

    def get_state(self) -> dict[str, Any]:
        """{"batch": int}: the number of the next batch."""
        return {"batch": self._next_batch}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where `get_state` was taken."""
        self._next_batch = int(state["batch"])

    def __next__(self) -> Batch:
        turn, place = divmod(self._next_batch, sum(self._sizes))
        part = int(place >= self._sizes[0])
        within = place - part * self._sizes[0]
        self._parts[part].set_state({"batch": turn * self._sizes[part] + within})
        self._next_batch += 1
        return next(self._parts[part])


class CompletedIterator:
    """Batches that are completed as they are read; its state is that of the rows."""

    def __init__(
        self, rows: ArrayBatches | MixedEpochs | LengthBatches, complete: Callable[[int, Batch], Batch]
    ) -> None:
        """`complete(number, batch)`: batch `number`, which may hang on nothing else, so that a run goes on exactly."""
        self._rows, self._complete = rows.make_iterator(), complete

    def get_state(self) -> dict[str, Any]:
        """Where the rows are."""
        return self._rows.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where `get_state` was taken."""
        self._rows.set_state(state)

    def __iter__(self) -> CompletedIterator:
        return self

    def __next__(self) -> Batch:
        number = self._rows.get_state()["batch"]
        return self._complete(number, next(self._rows))
