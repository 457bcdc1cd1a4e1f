"""Rows of about one length in one device call, and few shapes of calls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def blocks_by_length(lengths: np.ndarray, sizes: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Numbers of rows in the order of their lengths, in blocks: those of a block, and the same filled up with its last
    one to the least of `sizes` that holds it, so that few programs are compiled and a small block is not computed as a
    large.

    Args:
      lengths: int [n].
      sizes: rows of the compiled programs, ascending; blocks have as many as the last.
    """
    order, blocks = np.argsort(lengths, kind="stable"), []
    for first in range(0, len(order), sizes[-1]):
        rows = order[first : first + sizes[-1]]
        size = next(size for size in sizes if len(rows) <= size)
        blocks.append((rows, np.pad(rows, (0, size - len(rows)), mode="edge")))
    return blocks
