"""The labelled training events of a split as a feed: rows of events, whose columns are looked up batch by batch."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import polars as pl

from plum_jax.feeds.array_batches import ArrayBatches, CompletedIterator
from plum_jax.feeds.batches import Batch
from plum_jax.ranking.event_columns import EventColumns
from plum_jax.ranking.labels import LabelledEvents


@dataclasses.dataclass(frozen=True, eq=False)
class EventBatches:
    """Batches with the columns of `EventColumns.of`, "label" float32 [B], and with `drawn` "drawn_items" int32 [B, T].

    Attributes:
      rows: batches of "event", int64 rows of `corpus.events`, and "label".
      columns: what is known of an event.
      drawn: whether an item is drawn for each behaviour, uniformly among those of the training events: a negative for
        DIEN's auxiliary loss.
    """

    rows: ArrayBatches
    columns: EventColumns
    drawn: bool = False

    @classmethod
    def of(
        cls, columns: EventColumns, events: LabelledEvents, batch_size: int, seed: int, *, drawn: bool = False
    ) -> EventBatches:
        """The labelled training events, reshuffled each epoch; guarded against leaks, with all that is before them."""
        split, rows = columns.split, events.rows["training"]
        # Every event that a training event is read with: itself, and all of the user before it.
        first = split.corpus.history_offsets[split.corpus.events["user"].to_numpy()[rows]]
        change = np.zeros(len(split.fold) + 1, np.int64)
        np.add.at(change, first, 1)
        np.add.at(change, rows + 1, -1)
        met = np.flatnonzero(np.cumsum(change)[:-1] > 0)
        read = split.corpus.events[met].with_columns(pl.Series("event", met, dtype=pl.Int64))
        split.check_no_leak(read, used_by="a ranker")
        arrays = {"event": rows, "label": events.label[rows]}
        return cls(ArrayBatches(arrays, min(batch_size, len(rows)), seed), columns, drawn)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that see every event once, but for those of an incomplete last one."""
        return self.rows.steps_per_epoch

    def make_iterator(self) -> CompletedIterator:
        """A fresh iterator at the start; it never ends."""
        return CompletedIterator(self.rows, self._completed)

    @functools.cached_property
    def _learnt(self) -> np.ndarray:
        return np.flatnonzero(self.columns.split.item_popularity).astype(np.int32)

    def _completed(self, number: int, chosen: Batch) -> Batch:
        batch = {"label": chosen["label"], **self.columns.of(chosen["event"])}
        if self.drawn:
            random = np.random.default_rng([self.rows.seed, 1, number])
            batch["drawn_items"] = self._learnt[random.integers(0, len(self._learnt), batch["behaviour_items"].shape)]
        return batch
