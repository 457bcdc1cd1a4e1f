"""Levenberg-Marquardt for many small problems at once: all starts, or all bootstrap draws, of a form together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# (parameters [some, p], which problems those are [some]) -> weighted residuals [some, n].
Residuals = Callable[[np.ndarray, np.ndarray], np.ndarray]

_STEP = 1e-6
_LEAST_DAMPING, _MOST_DAMPING = 1e-12, 1e9
_PATIENCE = 3


def minimise_squares(
    residuals: Residuals, starts: np.ndarray, steps: int = 300, tolerance: float = 1e-12
) -> tuple[np.ndarray, np.ndarray]:
    """Descends from every start.

    Args:
      residuals: of some of the problems; what is not finite counts as infinitely bad.
      starts: [problems, p], unconstrained parameters of order 1.
      steps: at most.
      tolerance: a problem leaves when three steps in a row lower its squares by less than this fraction.

    Returns:
      Parameters [problems, p] and half their sums of squares [problems].
    """
    theta = np.array(starts, float)
    everyone = np.arange(len(theta))
    cost = _cost(residuals(theta, everyone))
    damping = np.full(len(theta), 1e-3)
    still = np.zeros(len(theta), int)
    for _ in range(steps):
        active = everyone[still < _PATIENCE]
        if not len(active):
            break
        tried = theta[active] + _move(residuals, theta[active], active, damping[active])
        tried_cost = _cost(residuals(tried, active))
        better = tried_cost < cost[active]
        with np.errstate(invalid="ignore"):
            gained = better & ~(cost[active] - tried_cost <= tolerance * cost[active])
        # A step that was refused has shrunk what is tried next: only at the most damping has it nowhere to go.
        stuck = ~better & (damping[active] >= _MOST_DAMPING)
        still[active] = np.where(gained, 0, still[active] + better + _PATIENCE * stuck)
        theta[active] = np.where(better[:, None], tried, theta[active])
        cost[active] = np.where(better, tried_cost, cost[active])
        damping[active] = np.clip(damping[active] * np.where(better, 0.15, 8.0), _LEAST_DAMPING, _MOST_DAMPING)
    return theta, cost


def _move(residuals: Residuals, theta: np.ndarray, which: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """The damped Gauss-Newton step of each problem, at most 3 in any parameter."""
    value = np.nan_to_num(residuals(theta, which), posinf=0.0, neginf=0.0)
    columns = []
    for i in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[i] = _STEP
        columns.append((residuals(theta + step, which) - residuals(theta - step, which)) / (2 * _STEP))
    jacobian = np.nan_to_num(np.stack(columns, -1), nan=0.0, posinf=0.0, neginf=0.0)
    transposed = jacobian.transpose(0, 2, 1)
    normal = transposed @ jacobian
    gradient = (transposed @ value[..., None])[..., 0]
    diagonal = np.einsum("bii->bi", normal)
    scale = diagonal + 1e-10 * diagonal.max(1, keepdims=True) + 1e-300
    damped = normal + (damping[:, None] * scale)[:, :, None] * np.eye(theta.shape[1])
    return np.clip(-np.linalg.solve(damped, gradient[..., None])[..., 0], -3, 3)


def _cost(value: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        cost = 0.5 * np.sum(value**2, 1)
    return np.where(np.isfinite(cost), cost, np.inf)
