"""Columns of items beside the tokens of a batch: what is known of the items that it names, looked up batch by batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from plum_jax.feeds.array_batches import ArrayBatches, CompletedIterator, MixedEpochs
from plum_jax.feeds.batches import Batch

DRAWN = "drawn_items"


@dataclasses.dataclass(frozen=True)
class DrawnItems:
    """Items that are drawn uniformly for each row of a batch, as negatives.

    Columns "drawn_items" int32 [B, k] and "drawn_log_q" float32 [B, k], the log-probability of each draw. Where a batch
    has room for all items, each stands in it once, which makes a sampled softmax the full one; what fills its last
    places up has a log-probability of inf, and so no weight.

    Attributes:
      a_row: k.
      items: int32 [n], what is drawn from.
      seed: of the draws; those of a batch follow from its number.
    """

    a_row: int
    items: np.ndarray
    seed: int

    def columns(self, rows: int, number: int) -> dict[str, np.ndarray]:
        """The columns of batch `number`, which has so many rows."""
        shape, count = (rows, self.a_row), rows * self.a_row
        log_q = np.full(count, -np.log(len(self.items)), np.float32)
        if count < len(self.items):
            drawn = self.items[np.random.default_rng([self.seed, number]).integers(0, len(self.items), count)]
        else:
            drawn = np.resize(self.items, count)
            log_q[:] = -np.log(count)
            log_q[len(self.items) :] = np.inf
        return {DRAWN: drawn.astype(np.int32).reshape(shape), "drawn_log_q": log_q.reshape(shape)}


@dataclasses.dataclass(frozen=True, eq=False)
class ItemColumns:
    """A feed of item histories whose batches have further columns.

    Attributes:
      rows: batches with the columns of `feeds.packing`, tokens being item indexes.
      columns: name of a further column -> the column [B, ...] of the items that it is of, and its values [N, ...] by
        item.
      drawn: items that are drawn for each row.
    """

    rows: ArrayBatches | MixedEpochs
    columns: Mapping[str, tuple[str, np.ndarray]]
    drawn: DrawnItems | None = None

    def make_iterator(self) -> CompletedIterator:
        """A fresh iterator at the start; it never ends."""
        return CompletedIterator(self.rows, self._completed)

    def _completed(self, number: int, batch: Batch) -> Batch:
        if self.drawn is not None:
            batch = batch | self.drawn.columns(len(batch["decoder_positions"]), number)
        return batch | {name: values[batch[items]] for name, (items, values) in self.columns.items()}
