"""The training histories of a split as a feed of packed rows, one position an item."""

from __future__ import annotations

import numpy as np

from plum_jax.corpus.splits import Split
from plum_jax.feeds.batches import ArrayBatches
from plum_jax.feeds.histories import history_rows
from plum_jax.feeds.tied_events import TiedEvents


def history_feed(
    split: Split,
    *,
    history_length: int,
    row_length: int,
    batch_size: int,
    seed: int,
    shuffle_ties: bool,
    used_by: str,
) -> TiedEvents:
    """Rows of item indexes (`feeds.histories.history_rows`), reshuffled each epoch; guarded against leaks.

    Args:
      split: whose training events they are.
      history_length, row_length: of the windows and the rows.
      batch_size: rows of a batch, at most those that there are.
      seed: of all orders.
      shuffle_ties: whether events of one user and time come in another order each epoch. Where times are not known
        (a corpus whose clock is "order") no events are tied.
      used_by: who learns from them, for the guard.
    """
    events = split.training_events()
    split.check_no_leak(events, used_by=used_by)
    user, item = events["user"].to_numpy(), events["item"].to_numpy().astype(np.int32)
    begins = np.diff(user, prepend=-1) != 0
    histories = np.split(np.arange(len(user)), np.flatnonzero(begins)[1:])
    rows = history_rows(histories, history_length, row_length, seed)
    batches = ArrayBatches(rows, min(batch_size, len(rows["decoder_positions"])), seed)
    if not shuffle_ties or split.corpus.clock == "order":
        return TiedEvents(batches, item, np.arange(len(item)), seed)
    changes = np.diff(events["time"].to_numpy(), prepend=0) != 0
    return TiedEvents(batches, item, np.cumsum(begins | changes), seed)
