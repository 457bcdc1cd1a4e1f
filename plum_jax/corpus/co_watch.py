"""Co-watches: which items the same users watch close together, counted over training events only."""

from __future__ import annotations

import numpy as np
import polars as pl
import scipy.sparse
from tqdm import tqdm

from plum_jax.corpus.splits import Split

EVENTS_PER_CHUNK = 1 << 20


def co_watch_pairs(split: Split, window: int) -> pl.DataFrame:
    """How often two items stand at most `window` positions apart in a user's training history.

    Args:
      split: its training events are counted.
      window: largest distance in positions; 1 counts neighbours only.

    Returns:
      "item_a" < "item_b" (Int32 item indexes), "count" (Int64), sorted by item_a and item_b. An item makes no pair with
      itself.

    Raises:
      ValueError: window < 1.
      LeakError: an evaluated event among the events counted.
    """
    if window < 1:
        raise ValueError(f"expected a co-watch window of at least 1, got {window}")
    events = split.training_events()
    split.check_no_leak(events, used_by="co-watch pairs")
    user, item = (events[column].to_numpy().astype(np.int64) for column in ("user", "item"))
    num_items = split.corpus.num_items
    total, pending = _counted(np.empty(0, np.int64)), []
    for start in tqdm(range(0, len(user), EVENTS_PER_CHUNK), desc="co-watch pairs", unit="chunk", delay=1):
        pending.append(_counted(_pair_keys(user, item, start, start + EVENTS_PER_CHUNK, window, num_items)))
        # Merge only when there is as much new as old: each pair is then touched a logarithmic number of times.
        if sum(frame.height for frame in pending) >= total.height:
            total, pending = _merged([total, *pending]), []
    total = _merged([total, *pending]).sort("key")
    return total.select(
        (pl.col("key") // num_items).cast(pl.Int32).alias("item_a"),
        (pl.col("key") % num_items).cast(pl.Int32).alias("item_b"),
        "count",
    )


def ppmi(pairs: pl.DataFrame, num_items: int) -> scipy.sparse.csr_array:
    """Positive pointwise mutual information of item pairs: max(0, log p(a, b) / (p(a) p(b))).

    Args:
      pairs: what `co_watch_pairs` returns.
      num_items: N.

    Returns:
      float64 [N, N], symmetric, zeros not stored.
    """
    a, b, count = (pairs[column].to_numpy() for column in ("item_a", "item_b", "count"))
    rows, columns, counts = np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([count, count])
    of_item = np.bincount(rows, weights=counts, minlength=num_items)
    # One product for both orders of a pair, so that the matrix is symmetric to the last bit.
    value = np.log(counts * of_item.sum() / (of_item[rows] * of_item[columns]))
    keep = value > 0
    matrix = scipy.sparse.coo_array((value[keep], (rows[keep], columns[keep])), shape=(num_items, num_items))
    return matrix.tocsr()


def _pair_keys(user: np.ndarray, item: np.ndarray, start: int, stop: int, window: int, num_items: int) -> np.ndarray:
    """int64 keys (smaller item * N + larger item) of all pairs whose earlier event is in [start, stop)."""
    keys = []
    for distance in range(1, window + 1):
        left = slice(start, max(start, min(stop, len(user) - distance)))
        right = slice(left.start + distance, left.stop + distance)
        a, b = item[left], item[right]
        pair = (user[left] == user[right]) & (a != b)
        keys.append(np.minimum(a, b)[pair] * num_items + np.maximum(a, b)[pair])
    return np.concatenate(keys)


def _counted(keys: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"key": keys}).group_by("key").agg(pl.len().cast(pl.Int64).alias("count"))


def _merged(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames).group_by("key").agg(pl.col("count").sum())
