"""Likelihoods of the loss law: Huber's density with a free scale, and what follows for intervals and profiles.

Besiroglu et al. 2024 (2404.10102) maximise sum_i log f((log L_i - log L(N_i, D_i)) / sigma) / sigma with f proportional
to exp(-Huber_.001). The threshold is in units of sigma, so f is a Laplace density but for its innermost thousandth, and
the fit all but the one of least absolute deviations.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import special, stats

from plum_jax.scaling import multi_start, parametric_law
from plum_jax.scaling.parametric_law import DELTA, ParametricFit

_STAGES = 6  # from the threshold of the Huber fit to that of the density, by equal factors
_CANDIDATES = 16  # lowest distinct ends of the Huber fit that are carried on


def fit_likelihood(
    N: np.ndarray,
    D: np.ndarray,
    loss: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    delta: float = DELTA,
    starts: np.ndarray | None = None,
) -> ParametricFit:
    """The law of largest likelihood with Huber's density and a free scale, all six jointly.

    The multi-start is that of `fit_parametric`; its lowest distinct ends are followed down to the density's threshold.
    `objective` is minus the log-likelihood, `scale` is sigma, in log loss.

    Args:
      N, D, loss: [n].
      weights: [n], of each row's log density; None is 1 each.
      delta: threshold of the density, in units of sigma.
      starts: [S, 5], see `fit_parametric`.
    """
    N, D, loss = parametric_law.checked(N=N, D=D, loss=loss)
    first = parametric_law.fit_parametric(N, D, loss, weights=weights, starts=starts)
    assert first.descents is not None
    candidates = multi_start.lowest_distinct(first.descents, _CANDIDATES)
    ends, scale, value = maximise(N, D, loss, candidates, weights=weights, delta=delta)
    best = int(value.argmax())
    return parametric_law.parametric_fit(
        ends[best],
        N,
        D,
        loss,
        objective=-float(value[best]),
        method="likelihood",
        scale=float(scale[best]),
        descents=first.descents,
    )


def maximise(
    N: np.ndarray,
    D: np.ndarray,
    loss: np.ndarray,
    log_parameters: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    delta: float = DELTA,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters [R, 5], sigma [R] and log-likelihood [R] at the local maxima that R Huber fits lead to.

    Args:
      N, D: [n].
      loss: [n] or [R, n].
      log_parameters: [R, 5].
      weights: [n] or [R, n].
    """
    design, target = parametric_law.chinchilla_design(N, D), np.log(loss)
    ends = np.array(log_parameters, float)
    for stage in range(1, _STAGES + 1):
        residual = target - parametric_law.log_loss(ends[:, None, :], N, D)
        threshold = delta * best_scale(residual, weights, delta)
        # Each threshold is a power between that of the Huber fit and the density's own.
        ends = multi_start.descend_from(
            design,
            target,
            ends,
            delta=DELTA ** (1 - stage / _STAGES) * threshold ** (stage / _STAGES),
            weights=weights,
        ).parameters
    residual = target - parametric_law.log_loss(ends[:, None, :], N, D)
    scale = best_scale(residual, weights, delta)
    weight = np.ones(residual.shape[-1]) if weights is None else weights
    return ends, scale, (weight * log_density(residual, scale[:, None], delta)).sum(-1)


def log_likelihood(
    log_parameters: np.ndarray, N: np.ndarray, D: np.ndarray, loss: np.ndarray, delta: float = DELTA
) -> float:
    """Log-likelihood of a given law, sigma chosen best for it."""
    residual = np.log(loss) - parametric_law.log_loss(np.asarray(log_parameters), np.asarray(N), np.asarray(D))
    return float(log_density(residual, best_scale(residual[None], None, delta)[0], delta).sum())


def log_density(residual: np.ndarray, scale: float | np.ndarray, delta: float = DELTA) -> np.ndarray:
    """Log of the density whose minus log is Huber's loss of residual / scale."""
    size = np.abs(residual) / scale
    huber = np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))
    middle = np.sqrt(2.0 * np.pi) * special.erf(delta / np.sqrt(2.0))
    return -huber - np.log(middle + 2.0 * np.exp(-0.5 * delta**2) / delta) - np.log(scale)


def best_scale(residual: np.ndarray, weights: np.ndarray | None, delta: float = DELTA) -> np.ndarray:
    """Sigma [R] of largest likelihood for residuals [R, n], by bisection of its derivative."""
    weight = np.ones(residual.shape[-1]) if weights is None else np.asarray(weights, float)
    size = np.abs(residual)
    total = np.broadcast_to(weight, size.shape).sum(-1)
    typical = np.log(delta * (weight * size).sum(-1) / total + 1e-300)  # the answer for a Laplace density
    low, high = typical - 15.0, typical + 15.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        scaled = size / np.exp(middle)[..., None]
        larger = (weight * np.minimum(scaled, delta) * scaled).sum(-1) > total
        low, high = np.where(larger, middle, low), np.where(larger, high, middle)
    return np.exp(0.5 * (low + high))


def temperature_log_likelihood(objective: np.ndarray, rows: float, delta: float) -> np.ndarray:
    """Largest log-likelihood of a sum of Huber losses under the density proportional to exp(-Huber_delta(r) / t).

    Here the threshold is fixed in log loss, as in the Huber fit, and the temperature t is free: so the fit is this
    likelihood's maximum and differences along a profile can be judged. With delta infinite it is the normal density.

    Args:
      objective: [...], sums of Huber losses.
      rows: number of rows, or sum of weights.
    """
    objective = np.asarray(objective, float)
    if not np.isfinite(delta):
        return -0.5 * rows * (np.log(2.0 * np.pi * 2.0 * objective / rows) + 1.0)
    mean = np.log(objective / rows)
    temperature = np.exp(mean[..., None] + np.linspace(-3.0, 3.0, 2001))
    root = np.sqrt(temperature)
    inside = np.sqrt(2.0 * np.pi) * root * special.erf(delta / (np.sqrt(2.0) * root))
    outside = 2.0 * temperature / delta * np.exp(-(delta**2) / (2.0 * temperature))
    return (-objective[..., None] / temperature - rows * np.log(inside + outside)).max(-1)


@dataclasses.dataclass(frozen=True)
class Profile:
    """Least objective over all other parameters at fixed values of one.

    Attributes:
      parameter: its name.
      values: [G], rising.
      objective: [G], sums of Huber losses.
      low, high: what the likelihood ratio does not exclude at `level`; an end of `values` where it excludes nothing.
      level: 0.9 for 90%.
      bounded_below, bounded_above: whether it excludes the ends of `values`.
    """

    parameter: str
    values: np.ndarray
    objective: np.ndarray
    low: float
    high: float
    level: float
    bounded_below: bool
    bounded_above: bool

    @property
    def flat(self) -> bool:
        """Whether an end of the searched range fits as well as can be told."""
        return not (self.bounded_below and self.bounded_above)


def judged_profile(
    parameter: str, values: np.ndarray, objective: np.ndarray, rows: float, delta: float, level: float = 0.9
) -> Profile:
    """A profile (values [G], objective [G], the fit among them) and what the likelihood ratio leaves of its range."""
    order = np.argsort(values)
    values, objective = np.asarray(values)[order], np.asarray(objective)[order]
    log_likelihoods = temperature_log_likelihood(objective, rows, delta)
    # Roots of the ratio are straight lines where the profile is a parabola: those are interpolated.
    root = np.sqrt(np.maximum(2.0 * (log_likelihoods.max() - log_likelihoods), 0.0))
    bound = np.sqrt(stats.chi2.ppf(level, 1))
    inside = np.flatnonzero(root <= bound)
    first, last = int(inside[0]), int(inside[-1])

    def crossing(outer: int, inner: int) -> float:
        share = (root[outer] - bound) / (root[outer] - root[inner])
        return float(values[outer] + share * (values[inner] - values[outer]))

    return Profile(
        parameter=parameter,
        values=values,
        objective=objective,
        low=crossing(first - 1, first) if first > 0 else float(values[0]),
        high=crossing(last + 1, last) if last < len(values) - 1 else float(values[-1]),
        level=level,
        bounded_below=first > 0,
        bounded_above=last < len(values) - 1,
    )
