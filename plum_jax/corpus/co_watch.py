"""Co-watches: which items the same users watch close together, counted over training events only."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import scipy.sparse
from tqdm import tqdm

from plum_jax.corpus.splits import Split

EVENTS_PER_CHUNK = 1 << 20
KEYS_PER_PASS = 1 << 25  # 256 MB; a pass counts one range of pairs


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
    user, item = events["user"].to_numpy(), events["item"].to_numpy().astype(np.int64)
    num_items = split.corpus.num_items
    bounds = _key_ranges(user, item, window, num_items)
    starts = range(0, len(user), EVENTS_PER_CHUNK)
    counted = [_counted(np.empty(0, np.int64), num_items)]
    with tqdm(total=len(starts) * (len(bounds) - 1), desc="co-watch pairs", unit=" chunks", delay=1) as progress:
        for low, high in itertools.pairwise(bounds):
            in_range = [np.empty(0, np.int64)]
            for start in starts:
                keys = _pair_keys(user, item, start, start + EVENTS_PER_CHUNK, window, num_items)
                in_range.append(keys[(keys >= low) & (keys < high)])
                progress.update()
            counted.append(_counted(np.concatenate(in_range), num_items))
    return pl.concat(counted)


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


def _key_ranges(user: np.ndarray, item: np.ndarray, window: int, num_items: int) -> list[int]:
    """Bounds of ranges of pair keys, about KEYS_PER_PASS pairs each, so that memory does not grow with the events."""
    passes = -(-len(user) * window // KEYS_PER_PASS)
    if passes <= 1:
        return [0, num_items**2]
    sample = _pair_keys(user, item, 0, EVENTS_PER_CHUNK, window, num_items)
    inner = np.quantile(sample, np.arange(1, passes) / passes, method="nearest") if len(sample) else []
    return [0, *(int(key) for key in np.unique(inner)), num_items**2]


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


def _counted(keys: np.ndarray, num_items: int) -> pl.DataFrame:
    """The pairs that the keys stand for, ascending, each once, with how often it is there. Sorts `keys` in place."""
    keys.sort()
    ends = np.flatnonzero(np.append(np.diff(keys) != 0, len(keys) > 0))
    pairs = keys[ends]
    return pl.DataFrame(
        {"item_a": pairs // num_items, "item_b": pairs % num_items, "count": np.diff(ends, prepend=-1)},
        schema={"item_a": pl.Int32, "item_b": pl.Int32, "count": pl.Int64},
    )
