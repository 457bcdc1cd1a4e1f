"""Histories in which events of one time come in another order each epoch: what was recorded together has no order."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from plum_jax.feeds.batches import ArrayBatches

_OF_EVENTS = ("decoder_input_tokens", "decoder_target_tokens")


@dataclasses.dataclass(frozen=True, eq=False)
class TiedEvents:
    """A feed of item histories from rows of event numbers.

    Reviews are dated to the day: 44% of Amazon Beauty's have the time of the one before, and which of them a file names
    first says nothing. So each epoch puts the events of one user and time in an order of its own; the first of a
    history is no target in one epoch and may be one in another.

    Attributes:
      rows: batches with the columns of `feeds.packing`, tokens being numbers of events.
      items: int32 [E], the item of each event.
      group: int [E], equal and contiguous for the events of one user and time.
      seed: of the orders.
    """

    rows: ArrayBatches
    items: np.ndarray
    group: np.ndarray
    seed: int

    def make_iterator(self) -> TiedEventsIterator:
        """A fresh iterator at the start; it never ends."""
        return TiedEventsIterator(self)


class TiedEventsIterator:
    """Iterator over `TiedEvents`; its state is that of the rows."""

    def __init__(self, feed: TiedEvents) -> None:
        self._feed = feed
        self._rows = feed.rows.make_iterator()
        self._epoch = -1  # of the items in memory
        self._items = feed.items

    def get_state(self) -> dict[str, Any]:
        """Where the rows are."""
        return self._rows.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where `get_state` was taken."""
        self._rows.set_state(state)

    def __iter__(self) -> TiedEventsIterator:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        epoch = self._rows.get_state()["batch"] // self._feed.rows.batches_per_epoch
        if epoch != self._epoch:
            self._epoch, self._items = epoch, self._reordered(epoch)
        batch = dict(next(self._rows))
        real = batch["decoder_segment_ids"] > 0
        return batch | {name: np.where(real, self._items[batch[name]], 0) for name in _OF_EVENTS}

    def _reordered(self, epoch: int) -> np.ndarray:
        """int32 [E]: the items, those of each group shuffled among its places."""
        feed = self._feed
        draws = np.random.default_rng([feed.seed, 1, epoch]).random(len(feed.items))
        return feed.items[np.lexsort((draws, feed.group))]
