"""The training histories of a split as a feed of packed rows, one position an item."""

from __future__ import annotations

import numpy as np

from plum_jax.corpus.splits import Split
from plum_jax.feeds.batches import ArrayBatches
from plum_jax.feeds.histories import history_rows


def history_feed(
    split: Split, *, history_length: int, row_length: int, batch_size: int, seed: int, used_by: str
) -> ArrayBatches:
    """Rows of item indexes (`feeds.histories.history_rows`), reshuffled each epoch; guarded against leaks.

    Args:
      split: whose training events they are.
      history_length, row_length: of the windows and the rows.
      batch_size: rows of a batch, at most those that there are.
      seed: of the orders.
      used_by: who learns from them, for the guard.
    """
    events = split.training_events()
    split.check_no_leak(events, used_by=used_by)
    user, item = events["user"].to_numpy(), events["item"].to_numpy()
    histories = np.split(item.astype(np.int32), np.flatnonzero(np.diff(user)) + 1)
    rows = history_rows(histories, history_length, row_length, seed)
    return ArrayBatches(rows, min(batch_size, len(rows["decoder_positions"])), seed)
