"""Fits of a bounded metric (recall@k): weights from counts, draws of runs, the profile of the irreducible miss rate."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import stats
from scipy.special import logit

from plum_jax.scaling.bounded_forms import Form, Inputs, Limits, irreducible_miss
from plum_jax.scaling.least_squares import minimise_squares
from plum_jax.scaling.noise import binomial_standard_error


@dataclasses.dataclass(frozen=True)
class RatePoints:
    """Runs, arrays of [points].

    Attributes:
      N: parameters.
      D: tokens.
      C: FLOPs.
      rate: recall@k.
      loss: measured.
      run: identity, for the bootstrap.
      standard_error: of the rate, evaluation and seed together (`rate_errors`); None weighs all alike.
    """

    N: np.ndarray
    D: np.ndarray
    C: np.ndarray
    rate: np.ndarray
    loss: np.ndarray
    run: np.ndarray
    standard_error: np.ndarray | None = None

    def take(self, where: np.ndarray) -> RatePoints:
        """The points of a mask or of indices."""
        error = None if self.standard_error is None else self.standard_error[where]
        columns = (self.N, self.D, self.C, self.rate, self.loss, self.run)
        N, D, C, rate, loss, run = (column[where] for column in columns)
        return RatePoints(N, D, C, rate, loss, run, error)


@dataclasses.dataclass(frozen=True)
class RateFit:
    """A fitted form.

    Attributes:
      form: which.
      theta: its unconstrained parameters, [p].
      draws: those of the bootstrap, [draws, p]; empty without.
      centre: mean log N, log D, log C of the fitted points.
      limits: floor, and the bound of E.
      points: how many were fitted.
      chi_square: weighted squares; without errors, of the residuals.
      freedom: points - parameters.
      lack_of_fit_sd: of the rate, beyond evaluation and seed noise; all of the residual where those are unknown.
    """

    form: Form
    theta: np.ndarray
    draws: np.ndarray
    centre: tuple[float, float, float]
    limits: Limits
    points: int
    chi_square: float
    freedom: int
    lack_of_fit_sd: float

    def rate(self, N: np.ndarray, D: np.ndarray, C: np.ndarray, loss: np.ndarray) -> np.ndarray:
        """Rates of cells, [cells]. The two-step form takes the loss that the loss law gives for them."""
        return self.form.rate(self.theta, self.inputs(N, D, C, loss), self.limits)

    def drawn_rates(self, N: np.ndarray, D: np.ndarray, C: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """The same of every draw, [draws, cells]; losses are those of the draws of the loss law, [draws, cells]."""
        rows = [
            self.form.rate(theta, self.inputs(N, D, C, loss), self.limits)
            for theta, loss in zip(self.draws, losses, strict=True)
        ]
        return np.array(rows)

    @property
    def irreducible(self) -> float | None:
        """E of a form that has one."""
        if self.form.irreducible is None:
            return None
        return float(irreducible_miss(self.theta[self.form.irreducible], self.limits))

    def inputs(self, N: np.ndarray, D: np.ndarray, C: np.ndarray, loss: np.ndarray) -> Inputs:
        """What the form is given for these cells."""
        n, d, c = self.centre
        return Inputs(np.log(N) - n, np.log(D) - d, np.log(C) - c, np.asarray(loss, float))


def rate_errors(rate: np.ndarray, users: np.ndarray, seed_sd: float = 0.0) -> np.ndarray:
    """Standard error of a rate: binomial of the users that were asked, and the spread between seeds."""
    return np.hypot(binomial_standard_error(rate * users, users), seed_sd)


def fit_rate(form: Form, points: RatePoints, floor: float | None = 0.0, counts: np.ndarray | None = None) -> RateFit:
    """The form by weighted least squares from many starts, and its draws.

    Args:
      form: one of `bounded_forms`.
      points: at least as many as the form has parameters.
      floor: rate by chance, k / items.
      counts: how often each point is in a bootstrap draw, [draws, points] (`bootstrap.draw_counts`); None for no draws.

    Raises:
      ValueError: fewer points than parameters.
    """
    parameters = form.parameters + (1 if form.of_loss and floor is None else 0)
    freedom = len(points.rate) - parameters
    if freedom < 0:
        raise ValueError(f"{form.name} has {parameters} parameters, and there are {len(points.rate)} points")
    log_n, log_d, log_c = np.log(points.N), np.log(points.D), np.log(points.C)
    centre = (float(log_n.mean()), float(log_d.mean()), float(log_c.mean()))
    inputs = Inputs(log_n - centre[0], log_d - centre[1], log_c - centre[2], points.loss)
    limits = Limits(floor, max(float(np.min(1 - points.rate)), 1e-9))
    weight = 1.0 if points.standard_error is None else 1 / points.standard_error

    def residuals(theta: np.ndarray, which: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return (form.rate(theta, inputs, limits) - points.rate) * weight

    ends, costs = minimise_squares(residuals, form.starts(points.rate, inputs, limits))
    theta = ends[int(np.argmin(costs))]
    draws = np.empty((0, len(theta)))
    if counts is not None:
        root, starts = np.sqrt(counts), np.tile(theta, (len(counts), 1))
        draws, _ = minimise_squares(lambda t, which: residuals(t, which) * root[which], starts, 100, 1e-9)
    misfit = form.rate(theta, inputs, limits) - points.rate
    known = 0.0 if points.standard_error is None else float(np.mean(points.standard_error**2))
    beyond = max(float(misfit @ misfit) / max(freedom, 1) - known, 0.0)
    return RateFit(
        form, theta, draws, centre, limits, len(points.rate), 2 * float(costs.min()), freedom, float(np.sqrt(beyond))
    )


@dataclasses.dataclass(frozen=True)
class Profile:
    """How well each irreducible miss rate fits when all else is fitted to it.

    Attributes:
      E: the grid.
      chi_square: at each, in units of the best fit's reduced chi square (1 where errors are known and the form holds).
      interval: the values of the grid just outside which chi_square is beyond the quantile.
      identified: whether the interval keeps clear of 0 and of the smallest miss rate seen.
    """

    E: np.ndarray
    chi_square: np.ndarray
    interval: tuple[float, float]
    identified: bool


def profile_irreducible(form: Form, points: RatePoints, confidence: float = 0.9, values: int = 31) -> Profile:
    """Profile of E for F2 and F3; it is usually not identified within two decades of compute.

    Raises:
      ValueError: a form without E.
    """
    if form.irreducible is None:
        raise ValueError(f"{form.name} has no irreducible miss rate")
    best = fit_rate(form, points)
    shares = np.linspace(0.001, 0.999, values)
    chi_square = _profiled(form, points, best, shares)
    for _ in range(3):
        lowest = min(float(chi_square.min()), best.chi_square)
        reduced = lowest / max(best.freedom, 1)
        unit = reduced if points.standard_error is None else max(reduced, 1.0)
        within = chi_square <= lowest + unit * float(stats.chi2.ppf(confidence, 1))
        within[np.argmin(chi_square)] = True
        first, last = np.flatnonzero(within)[[0, -1]]
        if within.sum() > values / 6:
            break
        # The interval is narrower than the grid: a finer one between the first values outside it.
        finer = np.linspace(shares[max(first - 1, 0)], shares[min(last + 1, len(shares) - 1)], values)
        order = np.argsort(np.concatenate([shares, finer]))
        chi_square = np.concatenate([chi_square, _profiled(form, points, best, finer)])[order]
        shares = np.concatenate([shares, finer])[order]
    E = best.limits.least_miss * shares
    interval = (float(E[max(first - 1, 0)]), float(E[min(last + 1, len(E) - 1)]))
    return Profile(E, chi_square / unit, interval, bool(first > 0 and last < len(E) - 1))


def _profiled(form: Form, points: RatePoints, best: RateFit, shares: np.ndarray) -> np.ndarray:
    """Chi square at each E, given as a share of the smallest miss rate, with all other parameters fitted."""
    weight = 1.0 if points.standard_error is None else 1 / points.standard_error
    inputs = best.inputs(points.N, points.D, points.C, points.loss)
    starts = np.concatenate([best.theta[None], form.starts(points.rate, inputs, best.limits)[::4]])
    each = np.repeat(logit(shares), len(starts))
    place = int(form.irreducible or 0)

    def residuals(free: np.ndarray, which: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return (form.rate(np.insert(free, place, each[which], 1), inputs, best.limits) - points.rate) * weight

    _, costs = minimise_squares(residuals, np.tile(np.delete(starts, place, 1), (len(shares), 1)), 100, 1e-9)
    return 2 * costs.reshape(len(shares), len(starts)).min(1)
