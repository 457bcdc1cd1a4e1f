"""How different the items of one list are: mean distance of two of them, by Semantic ID or by embedding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from plum_jax.evaluation.metrics.ranking import NOTHING

_AT_ONCE = 1 << 24  # numbers in memory at a time
# (items [U, k], which of them are real [U, k]) -> likeness of all ordered pairs of different items, summed, [U].
_Likeness = Callable[[np.ndarray, np.ndarray], np.ndarray]


def sid_diversity(ranked: np.ndarray, codes: np.ndarray, k: int) -> np.ndarray:
    """Mean over pairs of 1 - (levels of prefix that two items share) / L, float64 [U].

    0: all on one SID; 1: no two share their first code. NaN for lists of fewer than two items.

    Args:
      ranked: int [U, at least k] item indexes, -1 where a list has ended.
      codes: int [N, L] of the catalogue.
      k: length of the lists.
    """
    levels = codes.shape[1]

    def shared(items: np.ndarray, real: np.ndarray) -> np.ndarray:
        same = np.ones((*real.shape, real.shape[1]), bool)
        depth = np.zeros(same.shape)
        for level in range(levels):
            code = codes[items, level]
            same &= code[:, :, None] == code[:, None, :]
            depth += same
        pairs = real[:, :, None] & real[:, None, :]
        # Each item with itself shares all levels; what is left is every pair twice.
        return (depth * pairs).sum(axis=(1, 2)) / levels - real.sum(axis=1)

    return _mean_distance(ranked, k, shared, k * k * 2)


def embedding_diversity(ranked: np.ndarray, embeddings: np.ndarray, k: int) -> np.ndarray:
    """Mean over pairs of 1 - cosine, float64 [U]; NaN for lists of fewer than two items.

    Args:
      ranked: int [U, at least k] item indexes, -1 where a list has ended.
      embeddings: float [N, D]; a row of zeros (an item without features) is at distance 1 of all.
      k: length of the lists.
    """

    def shared(items: np.ndarray, real: np.ndarray) -> np.ndarray:
        vectors = embeddings[items].astype(np.float64)
        norms = np.linalg.norm(vectors, axis=2, keepdims=True)
        vectors = vectors / np.where(norms > 0, norms, 1.0) * real[:, :, None]
        # |sum|^2 is the sum of all products, those of each vector with itself among them.
        return (vectors.sum(axis=1) ** 2).sum(axis=1) - (vectors**2).sum(axis=(1, 2))

    return _mean_distance(ranked, k, shared, k * embeddings.shape[1])


def _mean_distance(ranked: np.ndarray, k: int, shared: _Likeness, numbers_per_user: int) -> np.ndarray:
    """1 - mean likeness of two items of a list, in blocks of users that need `numbers_per_user` each."""
    first = ranked[:, :k]
    real = first != NOTHING
    items = np.where(real, first, 0)
    total = np.zeros(len(first))
    step = max(1, _AT_ONCE // numbers_per_user)
    for start in range(0, len(first), step):
        rows = slice(start, start + step)
        total[rows] = shared(items[rows], real[rows])
    lengths = real.sum(axis=1)
    pairs = np.where(lengths > 1, lengths * (lengths - 1.0), np.nan)
    return 1.0 - total / pairs
