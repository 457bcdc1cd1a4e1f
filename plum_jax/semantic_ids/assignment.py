"""Assignment: the nearest codeword of each level, at the speed of the machine's matrix product."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import faiss
import numpy as np
import threadpoolctl

ROWS_AT_ONCE = 512  # a thread's block: with fewer, the product spends its time on preparing the codebook
SCORES_AT_ONCE = 1 << 20  # fewer rows where codebooks are so large that a block had more scores than these


class Assignment(NamedTuple):
    """Codes int32 [N, L], and what each level leaves of the latent: squared_error float32 [N, L]."""

    codes: np.ndarray
    squared_error: np.ndarray


def assign(
    latents: np.ndarray,
    codebooks: Sequence[np.ndarray],
    last_level_bias: np.ndarray | None = None,
    threads: int | None = None,
) -> Assignment:
    """The codeword of each level that is nearest to what the levels before have left over.

    A row's codes do not depend on the rows around it, nor on the machine: where the rounding of the matrix product
    could decide between codes, they are compared again in double precision. So a catalogue assigned in one piece, in a
    stream or on many machines gets the same codes.

    Args:
      latents: float32 [N, D].
      codebooks: L arrays, float32 [W_l, D].
      last_level_bias: float32 [W_L], subtracted from the squared distances of the last level (see `balance.py`).
      threads: blocks at the same time; None: a thread for each core. Each has a matrix product of one thread: on
        shared cores the threads of one product spin while they wait for each other (7-17 times slower).
    """
    latents = np.asarray(latents, np.float32)
    levels = [_Level(codebook) for codebook in codebooks]
    if last_level_bias is not None:
        levels[-1] = _Level(codebooks[-1], last_level_bias)
    codes = np.empty((len(latents), len(levels)), np.int32)
    errors = np.empty(codes.shape, np.float32)
    rows = min(ROWS_AT_ONCE, max(64, SCORES_AT_ONCE // max(len(codebook) for codebook in codebooks)))
    starts = iter(range(0, len(latents), rows))

    def work(_: int) -> None:
        # Each thread keeps its arrays: fresh ones are pages that the kernel zeroes, a quarter of the time.
        residual, codewords = np.zeros((2, rows, latents.shape[1]), np.float32)
        scores = [np.empty((rows, len(level.codebook)), np.float32) for level in levels]
        for start in starts:
            block = latents[start : start + rows]
            residual[: len(block)] = block
            squared = np.vecdot(residual, residual)
            for number, level in enumerate(levels):
                nearest = level.nearest(residual, squared, len(block), scores[number])
                residual -= np.take(level.codebook, nearest, axis=0, out=codewords, mode="clip")
                squared = np.vecdot(residual, residual)
                codes[start : start + rows, number] = nearest[: len(block)]
                errors[start : start + rows, number] = squared[: len(block)]

    workers = num_threads(threads)
    with threadpoolctl.threadpool_limits(1, "blas"), concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(work, range(workers)):
            pass
    return Assignment(codes, errors)


class _Level:
    """A codebook prepared for one product: |r - e|^2 = |r|^2 - 2 r.e + |e|^2, and |r|^2 is the same for all codes."""

    def __init__(self, codebook: np.ndarray, bias: np.ndarray | None = None) -> None:
        self.codebook = np.ascontiguousarray(codebook, np.float32)
        self.bias = np.zeros(len(codebook)) if bias is None else bias.astype(np.float64)
        squared_lengths = np.square(self.codebook, dtype=np.float64).sum(axis=1)
        self.factor = np.ascontiguousarray(-2 * self.codebook.T)
        self.offset = (squared_lengths - self.bias).astype(np.float32)
        length = float(np.sqrt(squared_lengths.max()))
        # Of a sum of D products and two more terms in float32, relative to the terms' lengths, on both sides.
        rounding = 2 * (self.codebook.shape[1] + 2) * float(np.finfo(np.float32).eps)
        self.doubt = rounding * (length**2 + np.abs(self.bias).max())  # and this much more for each unit of |r|:
        self.doubt_by_length = rounding * 2 * length

    def nearest(self, residual: np.ndarray, squared: np.ndarray, count: int, scores: np.ndarray) -> np.ndarray:
        """int64 [rows], the code of each row of residual [rows, D]; of codes at the same distance the first.

        Args:
          residual: float32.
          squared: float32 [rows], |r|^2.
          count: rows from there on fill the block up; their codes are of no account.
          scores: float32 [rows, W], overwritten.
        """
        np.matmul(residual, self.factor, out=scores)
        scores += self.offset
        nearest = scores.argmin(axis=1)
        rows = np.arange(len(scores))
        best = scores[rows, nearest]
        # The second best by argmin again: numpy's min along rows takes four times as long.
        scores[rows, nearest] = np.inf
        margin = scores[rows, scores.argmin(axis=1)] - best
        doubt = self.doubt + self.doubt_by_length * np.sqrt(squared)
        for row in np.flatnonzero(margin[:count] <= doubt[:count]):
            near = np.union1d(np.flatnonzero(scores[row] <= best[row] + doubt[row]), nearest[row])
            difference = residual[row].astype(np.float64) - self.codebook[near]
            nearest[row] = near[np.argmin(np.square(difference).sum(axis=1) - self.bias[near])]
        return nearest


def num_threads(threads: int | None) -> int:
    """`threads`, or as many as this process may use cores."""
    return threads or len(os.sched_getaffinity(0))


@contextlib.contextmanager
def bounded_threads(threads: int) -> Iterator[None]:
    """Bounds faiss's thread pool: on shared cores its threads spin while they wait for each other.

    Measured on two busy cores: k-means assignment ran 4-8 times slower with two threads than with one.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
