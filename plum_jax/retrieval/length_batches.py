"""Batches of prompts of nearly equal length, each padded to one of few lengths, so that few programs are compiled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_LENGTH_MULTIPLE = 16  # compiled prompt lengths are multiples of this, so that two folds share them
_SHAPE_COST = 50_000  # tokens of padding that another compiled length must save: what 2 cores read while they compile


def length_batches(lengths: np.ndarray, batch_size: int, num_buckets: int) -> Iterator[tuple[np.ndarray, int]]:
    """Rows in batches of nearly equal length, each with the length that its prompts are padded to, longest first.

    The lengths are chosen so that padding and compiling cost least. With the start token each is a multiple of 16.
    """
    rounded = -(-(lengths + 1) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE - 1
    limits = bucket_limits(rounded, num_buckets, _SHAPE_COST)
    bucket = np.searchsorted(limits, lengths)
    # The longest first: whoever runs out of memory does so at once.
    for number in reversed(range(len(limits))):
        rows = np.flatnonzero(bucket == number)
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size], int(limits[number])


def bucket_limits(lengths: np.ndarray, num_buckets: int, shape_cost: int = 0) -> np.ndarray:
    """At most `num_buckets` of the `lengths`, rising, such that the cost is least.

    The cost is the sum of all lengths, each padded up to the next limit, and `shape_cost` for each limit.
    """
    if not len(lengths):
        return np.zeros(0, np.int64)
    sizes, counts = np.unique(lengths, return_counts=True)
    before = np.append(0, np.cumsum(counts))
    # held[i, j]: lengths of sizes i .. j, were they the last bucket of a dynamic programme over sizes.
    held = before[None, 1:] - before[:-1, None]
    last = np.where(held > 0, held * sizes[None, :] + shape_cost, np.inf)
    cost = np.append(0.0, np.full(len(sizes), np.inf))  # of the first j sizes
    cuts = []
    for _ in range(min(num_buckets, len(sizes))):
        total = cost[:-1, None] + last
        cuts.append(total.argmin(axis=0))
        cost = np.append(0.0, total.min(axis=0))
    limits, end = [], len(sizes)
    for cut in reversed(cuts):
        if end:
            limits.append(sizes[end - 1])
            end = int(cut[end - 1])
    return np.array(limits[::-1])
