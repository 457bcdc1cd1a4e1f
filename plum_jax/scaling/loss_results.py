"""What an analysis of losses says: intervals, frontiers, methods, fitted laws."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.scaling.design import GuessedLaw
from plum_jax.scaling.parametric_law import (
    ParametricFit,
    log_loss,
)


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure and where it may be."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Frontier:
    """The best size at each compute, with bands: arrays of [values]; loss is None for methods that give none there."""

    flops: np.ndarray
    N: np.ndarray
    N_low: np.ndarray
    N_high: np.ndarray
    D: np.ndarray
    D_low: np.ndarray
    D_high: np.ndarray
    loss: np.ndarray | None = None
    loss_low: np.ndarray | None = None
    loss_high: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Method:
    """What one method says.

    Attributes:
      name: of the method.
      a: N* grows as C^a; None where `why_not` says why.
      b: D* grows as C^b.
      parameters: E, A, B, alpha and beta with intervals, for the parametric fits.
      frontier: None without exponents.
      why_not: what keeps the method from an answer.
      warnings: what weakens its answer.
    """

    name: str
    a: Interval | None
    b: Interval | None
    parameters: dict[str, Interval]
    frontier: Frontier | None
    why_not: str = ""
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class LawFit:
    """A parametric law with the laws of its draws.

    Attributes:
      fit: of all points.
      draws: (log A, log B, log E, alpha, beta) of each draw, [draws, 5].
      run_names: identity of each point's run, [points].
      counts: how often each point was in each draw, [draws, points]; the rates are drawn with the same.
      flops_per_nd: C / (N D) of the runs, geometric mean: what turns compute into N and D.
    """

    fit: ParametricFit
    draws: np.ndarray
    run_names: np.ndarray
    counts: np.ndarray
    flops_per_nd: float

    def losses(self, N: np.ndarray, D: np.ndarray) -> np.ndarray:
        """Loss of each draw at these cells, [draws, cells]."""
        return np.exp(log_loss(self.draws[:, None, :], np.asarray(N, float)[None], np.asarray(D, float)[None]))

    def laws(self) -> list[GuessedLaw]:
        """The draws as laws."""
        scales, exponents = np.exp(self.draws[:, :3]), self.draws[:, 3:]
        return [GuessedLaw(e, a, b, *x) for (a, b, e), x in zip(scales.tolist(), exponents.tolist(), strict=True)]

    def losses_of_draw(self, draw: int, N: np.ndarray, D: np.ndarray) -> np.ndarray:
        """Loss of one draw at these cells, [cells]."""
        return np.exp(log_loss(self.draws[draw], N, D))
