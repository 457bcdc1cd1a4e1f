"""Repeated data: what epochs over the same tokens are worth (Muennighoff et al. 2023, 2305.16264, section 3).

L = E + A N'^-alpha + B D'^-beta with D' = U + U R_D* (1 - exp(-R_D / R_D*)): of D = U (1 + R_D) tokens, U are unique
and each repetition is worth less than the one before. Parameters beyond U_N, the best size for U unique tokens, decay
in the same way with R_N*. The law of one epoch is given (`ParametricFit`), R_D* and R_N* are fitted.

The objective is nearly flat in R_D* and has more than one minimum: a point estimate says little. `fit_data_constrained`
returns all minima and the profile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import optimize

from plum_jax.scaling import likelihood, parametric_law
from plum_jax.scaling.likelihood import Profile
from plum_jax.scaling.parametric_law import DELTA, ParametricFit

_Objective = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of R_D* and R_N*
_RANGE = (-1.0, 5.0)  # log10 of either constant on the grid
_GRID = 121  # points of either axis: 5% of a decade


@dataclasses.dataclass(frozen=True)
class Basin:
    """A local minimum."""

    R_D: float
    R_N: float
    objective: float


@dataclasses.dataclass(frozen=True)
class DataConstrainedFit:
    """Repetition constants of a law, with everything that speaks against taking them for known.

    Attributes:
      basins: local minima, lowest first; the first is the fit.
      profile: of R_D*; where it is flat, R_D* is not identified.
      one_epoch: the law that was given.
    """

    basins: tuple[Basin, ...]
    profile: Profile
    one_epoch: ParametricFit

    def loss(self, N: np.ndarray, D: np.ndarray, unique: np.ndarray) -> np.ndarray:
        """The law at N parameters, D tokens seen, of which `unique` are different."""
        logs = _log_loss(self.one_epoch, N, D, unique, np.asarray(self.basins[0].R_D), np.asarray(self.basins[0].R_N))
        return np.exp(logs)


def fit_data_constrained(
    N: np.ndarray,
    D: np.ndarray,
    unique: np.ndarray,
    loss: np.ndarray,
    one_epoch: ParametricFit,
    *,
    delta: float = DELTA,
    level: float = 0.9,
) -> DataConstrainedFit:
    """Minimises the sum of Huber losses of log residuals over R_D* and R_N*, from every local minimum of a fine grid.

    Args:
      N, D, unique, loss: [n]; D are tokens seen, `unique` the different ones.
      one_epoch: law of runs that repeat nothing; stays as it is.
      delta: Huber's threshold.
      level: of the profile's interval.
    """
    N, D, unique, loss = parametric_law.checked(least_rows=3, N=N, D=D, unique=unique, loss=loss)
    axis = np.logspace(*_RANGE, _GRID)

    def objective(R_D: np.ndarray, R_N: np.ndarray) -> np.ndarray:
        prediction = _log_loss(one_epoch, N, D, unique, np.asarray(R_D)[..., None], np.asarray(R_N)[..., None])
        residual = prediction - np.log(loss)
        clipped = np.clip(residual, -delta, delta)
        return (clipped * (residual - 0.5 * clipped)).sum(-1)

    table = np.stack([objective(np.full(_GRID, R_D), axis) for R_D in axis])
    basins = _basins(objective, axis, table)
    # Finer around the lowest minimum, as far as two cells of the grid.
    near = basins[0].R_D * (axis[1] / axis[0]) ** np.linspace(-2.0, 2.0, 81)
    near_table = np.stack([objective(np.full(_GRID, R_D), axis) for R_D in near])
    profile = np.concatenate([_profile(objective, axis, axis, table), _profile(objective, near, axis, near_table)])
    values = np.concatenate([axis, near, [basins[0].R_D]])
    lows = np.append(profile, basins[0].objective)
    return DataConstrainedFit(
        basins=basins,
        profile=likelihood.judged_profile("R_D", values, lows, len(loss), delta, level),
        one_epoch=one_epoch,
    )


def _basins(objective: _Objective, axis: np.ndarray, table: np.ndarray) -> tuple[Basin, ...]:
    """Local minima of the grid [G, G], followed down; those that end in one place count once."""
    corners = 0.02 * np.array([[0, 0], [1, 0], [0, 1]])
    options = {"xatol": 1e-9, "fatol": 1e-16}
    padded = np.pad(table, 1, constant_values=np.inf)
    shifts = [(i, j) for i in (0, 1, 2) for j in (0, 1, 2) if (i, j) != (1, 1)]
    lower = [table <= padded[i : i + _GRID, j : j + _GRID] for i, j in shifts]
    found: list[Basin] = []
    for row, column in np.argwhere(np.logical_and.reduce(lower)):
        start = np.log([axis[row], axis[column]])
        end = optimize.minimize(
            lambda logs: float(objective(*np.exp(np.clip(logs, -5.0, 15.0)))),
            start,
            method="Nelder-Mead",
            options=options | {"initial_simplex": start + corners},
        )
        R_D, R_N = np.exp(end.x)
        if all(abs(np.log(R_D / other.R_D)) + abs(np.log(R_N / other.R_N)) > 1e-3 for other in found):
            found.append(Basin(float(R_D), float(R_N), float(end.fun)))
    return tuple(sorted(found, key=lambda basin: basin.objective))


def _profile(objective: _Objective, values: np.ndarray, axis: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Least objective over R_N* at each R_D* of `values`, refined around the lowest point of `table` [values, axis]."""
    best = table.argmin(1)
    step = np.log(axis[1] / axis[0])
    offsets = np.linspace(-step, step, 81)
    fine = objective(np.repeat(values[:, None], 81, 1), axis[best][:, None] * np.exp(offsets))
    return np.minimum(fine.min(1), table.min(1))


def _log_loss(
    law: ParametricFit, N: np.ndarray, D: np.ndarray, unique: np.ndarray, R_D: np.ndarray, R_N: np.ndarray
) -> np.ndarray:
    """Log of the law with effective tokens and parameters."""
    balance = (law.alpha * law.A / (law.beta * law.B)) ** (1.0 / (law.alpha + law.beta))
    # The size for which U tokens are compute-optimal: D* = (C / 6)^b / balance, N* = balance (C / 6)^a.
    best_N = (unique * balance) ** (law.beta / law.alpha) * balance
    base_N = np.minimum(best_N, N)
    return parametric_law.log_loss(
        law.log_parameters, _effective(N, base_N, R_N), _effective(D, np.minimum(unique, D), R_D)
    )


def _effective(total: np.ndarray, base: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """`base` and what repetitions of it are worth: base + base R* (1 - exp(-R / R*)) with R = total / base - 1."""
    return base * (1.0 - constant * np.expm1(-np.maximum(total / base - 1.0, 0.0) / constant))
