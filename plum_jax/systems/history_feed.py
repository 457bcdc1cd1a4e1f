"""The training histories of a split as a feed of packed rows, one position an item."""

from __future__ import annotations

import numpy as np

from plum_jax.corpus.splits import Split
from plum_jax.feeds.array_batches import ArrayBatches
from plum_jax.feeds.histories import history_rows


def history_feed(
    split: Split,
    *,
    history_length: int,
    row_length: int,
    batch_size: int,
    seed: int,
    used_by: str,
    with_events: bool = False,
    reward: np.ndarray | None = None,
) -> ArrayBatches:
    """Rows of item indexes (`feeds.histories.history_rows`), reshuffled each epoch; guarded against leaks.

    Args:
      split: whose training events they are.
      history_length, row_length: of the windows and the rows.
      batch_size: rows of a batch, at most those that there are.
      seed: of the orders.
      used_by: who learns from them, for the guard.
      with_events: whether rows also have "input_events", int32 [R, T], rows of `corpus.events` that the inputs are.
      reward: float32 [training events], what each is worth as a target, its loss weight; None: 1.
    """
    events = split.training_events()
    split.check_no_leak(events, used_by=used_by)
    item, row_of = events["item"].to_numpy().astype(np.int32), events["event"].to_numpy().astype(np.int32)
    of_user = np.split(np.arange(len(item)), np.flatnonzero(np.diff(events["user"].to_numpy())) + 1)
    rows = history_rows(of_user, history_length, row_length, seed)
    real, read = rows["decoder_segment_ids"] > 0, rows["decoder_input_tokens"]
    if reward is not None:
        rows["decoder_loss_weights"] = np.where(real, reward[rows["decoder_target_tokens"]], np.float32(0))
    if with_events:
        rows["input_events"] = np.where(real, row_of[read], 0)
    for name in ("decoder_input_tokens", "decoder_target_tokens"):
        rows[name] = np.where(real, item[rows[name]], 0)
    return ArrayBatches(rows, min(batch_size, len(rows["decoder_positions"])), seed)


def log_q(split: Split) -> np.ndarray:
    """float32 [N], log of each item's share of the training events: what in-batch negatives are corrected by (logQ)."""
    popularity = np.maximum(split.item_popularity, 1)  # an item that is never a target has no use for its share
    return np.log(popularity / popularity.sum()).astype(np.float32)
