"""What the figures of a run scatter by: its seed, from replicated cells, and a finite number of evaluated users."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True)
class ReplicateNoise:
    """Scatter of runs that differ in nothing but their seeds.

    Attributes:
      sd: pooled standard deviation within cells.
      low, high: interval of it, from the chi-squared distribution (normal noise).
      degrees: degrees of freedom: replicated runs less cells that have replicates.
      evaluation_sd: the part that the finite evaluation explains; 0 where none was given.
      seed_sd: the rest; 0 where the evaluation explains all.
    """

    sd: float
    low: float
    high: float
    degrees: int
    evaluation_sd: float
    seed_sd: float


def binomial_standard_error(hits: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Standard error of recall = hits / users [n], each user hit or not.

    With no or only hits the plain estimate would be 0, and such a run would weigh infinitely: half a hit and half a
    miss are added to either side.
    """
    hits, users = np.asarray(hits, float), np.asarray(users, float)
    if np.any(hits < 0) or np.any(hits > users) or np.any(users <= 0):
        row = int(np.flatnonzero((hits < 0) | (hits > users) | (users <= 0))[0])
        raise ValueError(f"row {row} has {hits.flat[row]:g} hits of {users.flat[row]:g} users; expected 0 to that many")
    rate = (hits + 0.5) / (users + 1.0)
    return np.sqrt(rate * (1.0 - rate) / users)


def replicate_noise(
    cells: np.ndarray, values: np.ndarray, evaluation_se: np.ndarray | None = None, level: float = 0.9
) -> ReplicateNoise:
    """Pooled scatter within cells, and the seed's part of it.

    Args:
      cells: [n] labels; runs of one label differ in their seeds only.
      values: [n], log losses or rates.
      evaluation_se: [n], standard errors of the evaluation in the same unit (`binomial_standard_error`). The same
        evaluation users are shared by all runs, so that this part of the scatter is an upper bound.

    Raises:
      ValueError: no cell has two runs.
    """
    values = np.asarray(values, float)
    _, cell = np.unique(np.asarray(cells), return_inverse=True)
    cell = cell.reshape(-1)
    counts = np.bincount(cell)
    replicated = counts[cell] > 1
    degrees = int(replicated.sum() - (counts > 1).sum())
    if degrees == 0:
        raise ValueError("no cell has two runs: the scatter of seeds needs at least one cell with two seeds")
    means = np.bincount(cell, values) / counts
    squares = float(((values - means[cell])[replicated] ** 2).sum())
    evaluation = 0.0 if evaluation_se is None else float(np.mean(np.asarray(evaluation_se, float)[replicated] ** 2))
    variance = squares / degrees
    tails = stats.chi2.ppf([0.5 * (1.0 + level), 0.5 * (1.0 - level)], degrees)
    return ReplicateNoise(
        sd=float(np.sqrt(variance)),
        low=float(np.sqrt(squares / tails[0])),
        high=float(np.sqrt(squares / tails[1])),
        degrees=degrees,
        evaluation_sd=float(np.sqrt(min(evaluation, variance))),
        seed_sd=float(np.sqrt(max(0.0, variance - evaluation))),
    )
