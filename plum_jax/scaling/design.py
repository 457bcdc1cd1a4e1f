"""What a grid of runs can teach before it is paid for: Fisher information of L = E + A N^-alpha + B D^-beta.

The observations are log losses with independent noise, so the information is J'J / noise^2 with J the gradient of
log L by the five parameters. The figures are optimistic: they take the form and the law for true.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

FLOPS_PER_ND = 6.0
# Directions of the parameters that are weaker than this beside the strongest one are not seen by the grid at all.
WEAKEST_DIRECTION = 1e-9


class Law(Protocol):
    """Anything with the five parameters, a `ParametricFit` for one. N in parameters, D in tokens, L in nats."""

    @property
    def E(self) -> float: ...  # noqa: E704
    @property
    def A(self) -> float: ...  # noqa: E704
    @property
    def B(self) -> float: ...  # noqa: E704
    @property
    def alpha(self) -> float: ...  # noqa: E704
    @property
    def beta(self) -> float: ...  # noqa: E704


@dataclasses.dataclass(frozen=True)
class GuessedLaw:
    """A law to plan with before there is a fit. The defaults are the refit of Hoffmann's points, 2404.10102."""

    E: float = 1.8172
    A: float = 477.84
    B: float = 2143.86
    alpha: float = 0.3473
    beta: float = 0.3672


@dataclasses.dataclass(frozen=True)
class ForecastError:
    """Expected error of the loss at the best size for `flops_multiple` times the largest budget of the grid.

    Attributes:
      flops_multiple: of the largest 6ND of the grid.
      N: parameters there.
      D: tokens there.
      loss: the law's, in nats.
      relative_standard_error: of the loss: 0.01 is 1%. From the parameters alone, without the noise of the run itself.
    """

    flops_multiple: float
    N: float
    D: float
    loss: float
    relative_standard_error: float


@dataclasses.dataclass(frozen=True)
class ExpectedErrors:
    """Expected standard errors of a grid; infinite where the grid does not identify the law (`identified` is False)."""

    cells: int
    noise: float
    E: float
    alpha: float
    beta: float
    a: float
    forecasts: tuple[ForecastError, ...]
    identified: bool

    def text(self) -> str:
        """One line for a plan."""
        if not self.identified:
            return (
                f"{self.cells} cells do not identify the law: at least 5 cells are needed that differ in N and in D "
                "independently"
            )
        ahead = ", ".join(f"{100 * f.relative_standard_error:.2g}% at {f.flops_multiple:g}x" for f in self.forecasts)
        return (
            f"expected standard errors with {100 * self.noise:.2g}% noise of the loss: alpha {self.alpha:.3f}, "
            f"beta {self.beta:.3f}, exponent a {self.a:.4f}, E {self.E:.3f}, loss {ahead}"
        )


def expected_standard_errors(
    N: np.ndarray | Sequence[float],
    D: np.ndarray | Sequence[float],
    law: Law,
    noise: float,
    flops_multiples: Sequence[float] = (10.0, 100.0),
) -> ExpectedErrors:
    """Standard errors that a fit of this grid would have, of the exponents, of E and of the loss ahead.

    Args:
      N: parameters of each cell, [cells].
      D: tokens of each cell, [cells]. A cell with three seeds stands there three times.
      law: guessed, or fitted on a pilot.
      noise: standard deviation of log loss between two runs that differ in seed only, e.g. 0.005.
      flops_multiples: of the largest 6ND in the grid, at which the loss of the best size is forecast.

    Raises:
      ValueError: arrays of different length, values or noise that are not positive.
    """
    N, D = _checked(N, D, noise)
    covariance = _covariance(N, D, law, noise)
    largest = FLOPS_PER_ND * float(np.max(N * D))
    forecasts = []
    for multiple in flops_multiples:
        best_n, best_d = optimum(law, multiple * largest)
        error = _error_of(covariance, _log_loss_gradient(np.array([best_n]), np.array([best_d]), law)[0])
        forecasts.append(ForecastError(multiple, best_n, best_d, float(loss(law, best_n, best_d)), error))
    rows = np.eye(5)
    return ExpectedErrors(
        cells=len(N),
        noise=noise,
        E=_error_of(covariance, rows[0]) * max(law.E, np.finfo(float).tiny),
        alpha=_error_of(covariance, rows[3]),
        beta=_error_of(covariance, rows[4]),
        a=_error_of(covariance, _exponent_gradient(law)),
        forecasts=tuple(forecasts),
        identified=covariance is not None,
    )


@dataclasses.dataclass(frozen=True)
class NextCell:
    """How much one more run would teach about the target.

    Attributes:
      index: of the candidate.
      flops: 6ND of the run.
      variance_reduction: fraction of the target's variance that the run is expected to take away, in [0, 1).
      per_flop: `variance_reduction / flops`, what to rank by.
    """

    index: int
    flops: float
    variance_reduction: float
    per_flop: float


def rank_next_cells(
    N: np.ndarray | Sequence[float],
    D: np.ndarray | Sequence[float],
    candidate_N: np.ndarray | Sequence[float],
    candidate_D: np.ndarray | Sequence[float],
    law: Law,
    noise: float,
    target: tuple[float, float] | None = None,
) -> list[NextCell]:
    """Candidates by what they take off the target's variance for a FLOP, best first.

    Args:
      N: parameters of the runs there are, [runs].
      D: tokens of the runs there are, [runs].
      candidate_N: parameters of the runs that could be next, [candidates].
      candidate_D: their tokens, [candidates].
      law: fitted on the runs there are.
      noise: standard deviation of log loss between seeds.
      target: (N, D) whose loss is to be forecast; the exponent a where it is None.

    Raises:
      ValueError: the runs there are do not identify the law yet, so nothing can be ranked.
    """
    N, D = _checked(N, D, noise)
    covariance = _covariance(N, D, law, noise)
    if covariance is None:
        raise ValueError(f"{len(N)} runs do not identify the law: run at least 5 cells that differ in N and in D first")
    if target is None:
        gradient = _exponent_gradient(law)
    else:
        gradient = _log_loss_gradient(np.array([target[0]]), np.array([target[1]]), law)[0]
    new_n, new_d = _checked(candidate_N, candidate_D, noise)
    rows = _log_loss_gradient(new_n, new_d, law)
    # Rank-one update: cov' = cov - cov j j' cov / (noise^2 + j' cov j).
    shared = (rows @ covariance @ gradient) ** 2
    own = noise**2 + np.einsum("ci,ij,cj->c", rows, covariance, rows)
    reduction = shared / own / float(gradient @ covariance @ gradient)
    flops = FLOPS_PER_ND * new_n * new_d
    cells = [
        NextCell(i, float(flops[i]), float(reduction[i]), float(reduction[i] / flops[i])) for i in range(len(rows))
    ]
    return sorted(cells, key=lambda cell: -cell.per_flop)


def loss(law: Law, N: np.ndarray | float, D: np.ndarray | float) -> np.ndarray:
    """The law's loss in nats."""
    return np.asarray(law.E + law.A * np.asarray(N) ** -law.alpha + law.B * np.asarray(D) ** -law.beta)


def optimum(law: Law, flops: float, flops_per_nd: float = FLOPS_PER_ND) -> tuple[float, float]:
    """N and D of least loss with `flops_per_nd * N * D = flops`."""
    ratio = (law.alpha * law.A / (law.beta * law.B)) ** (1 / (law.alpha + law.beta))
    best_n = ratio * (flops / flops_per_nd) ** (law.beta / (law.alpha + law.beta))
    return float(best_n), float(flops / flops_per_nd / best_n)


def _checked(
    N: np.ndarray | Sequence[float], D: np.ndarray | Sequence[float], noise: float
) -> tuple[np.ndarray, np.ndarray]:
    N, D = np.asarray(N, float), np.asarray(D, float)
    if N.shape != D.shape or N.ndim != 1:
        raise ValueError(f"expected N and D of the same length, got shapes {N.shape} and {D.shape}")
    if not (np.all(N > 0) and np.all(D > 0) and noise > 0):
        raise ValueError(f"expected positive parameters, tokens and noise, got noise {noise}, N {N}, D {D}")
    return N, D


def _log_loss_gradient(N: np.ndarray, D: np.ndarray, law: Law) -> np.ndarray:
    """d log L / d (log E, log A, log B, alpha, beta), [cells, 5]."""
    of_size = law.A * N**-law.alpha
    of_data = law.B * D**-law.beta
    total = law.E + of_size + of_data
    irreducible = np.full_like(N, max(law.E, np.finfo(float).tiny))
    columns = [irreducible, of_size, of_data, -of_size * np.log(N), -of_data * np.log(D)]
    return np.stack(columns, -1) / total[:, None]


def _exponent_gradient(law: Law) -> np.ndarray:
    """d a / d (log E, log A, log B, alpha, beta)."""
    return np.array([0, 0, 0, -law.beta, law.alpha]) / (law.alpha + law.beta) ** 2


def _covariance(N: np.ndarray, D: np.ndarray, law: Law, noise: float) -> np.ndarray | None:
    """Inverse of the information, [5, 5]; None where the grid leaves a direction of the parameters unseen."""
    rows = _log_loss_gradient(N, D, law) / noise
    scale = np.linalg.norm(rows, axis=0)
    if len(rows) < 5 or np.any(scale == 0):
        return None
    _, strengths, directions = np.linalg.svd(rows / scale, full_matrices=False)
    if strengths[-1] < WEAKEST_DIRECTION * strengths[0]:
        return None
    half = directions.T / strengths / scale[:, None]
    return half @ half.T


def _error_of(covariance: np.ndarray | None, gradient: np.ndarray) -> float:
    return float("inf") if covariance is None else float(np.sqrt(gradient @ covariance @ gradient))
