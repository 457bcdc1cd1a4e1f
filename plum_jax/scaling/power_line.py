"""A power law of compute, y = coefficient * C^exponent, through optima that were found, with draws for its band."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Line:
    """log y = log(coefficient) + exponent log C, with an interval of each by percentiles of the draws.

    Attributes:
      exponent: the slope.
      exponent_interval: at the `confidence` of whoever drew.
      coefficient: y at C = 1; far outside the data, to be used with the exponent only.
      draws: (log coefficient, exponent) of each draw, [draws, 2], for bands and predictions.
    """

    exponent: float
    exponent_interval: tuple[float, float]
    coefficient: float
    draws: np.ndarray

    def at(self, flops: np.ndarray | float) -> np.ndarray:
        """y at these FLOPs."""
        return self.coefficient * np.asarray(flops, float) ** self.exponent

    def flops_for(self, y: float, confidence: float = 0.9) -> tuple[float, float, float]:
        """FLOPs at which the line reaches y, and their interval; infinite where a draw never does."""
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            drawn = np.exp((np.log(y) - self.draws[:, 0]) / self.draws[:, 1])
            value = float(np.exp((np.log(y) - np.log(self.coefficient)) / self.exponent))
        # A line that falls with compute reached larger sizes before, and will not again.
        drawn = np.where(self.draws[:, 1] > 0, drawn, np.inf)
        low, high = np.quantile(drawn, tails(confidence), method="inverted_cdf")
        return value, float(low), float(high)

    def band(self, flops: np.ndarray | float, confidence: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper y at these FLOPs."""
        log_y = self.draws[:, :1] + self.draws[:, 1:] * np.log(np.atleast_1d(flops))[None]
        low, high = np.quantile(np.exp(log_y), tails(confidence), axis=0)
        return low, high


def fit_line(
    flops: np.ndarray,
    optima: np.ndarray,
    drawn: np.ndarray,
    weights: np.ndarray | None = None,
    confidence: float = 0.9,
) -> Line:
    """The line through log optima, and the same through every draw of them.

    Args:
      flops: [budgets].
      optima: positive, [budgets].
      drawn: the optima of each draw, [draws, budgets]; NaN where a draw has none, at least two budgets a draw stay.
      weights: of a budget, 1 / variance of log optimum, [budgets].
      confidence: of the interval of the exponent.
    """
    weights = np.ones_like(flops) if weights is None else weights
    (intercept, exponent) = _weighted_lines(np.log(flops), np.log(optima)[None], weights)[0]
    whole = drawn[np.isfinite(drawn).sum(1) >= 2]
    draws = _weighted_lines(np.log(flops), np.log(whole), weights)
    interval = np.quantile(draws[:, 1], tails(confidence)) if len(draws) else (np.nan, np.nan)
    return Line(float(exponent), (float(interval[0]), float(interval[1])), float(np.exp(intercept)), draws)


def tails(confidence: float) -> tuple[float, float]:
    """The quantiles of a central interval: 0.9 gives 0.05 and 0.95."""
    return (1 - confidence) / 2, (1 + confidence) / 2


def _weighted_lines(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Intercept and slope of each row of y [draws, budgets], NaN left out: [draws, 2]."""
    weight = np.isfinite(y) * weights[None]
    y = np.where(np.isfinite(y), y, 0.0)
    total = weight.sum(1)
    mean_x, mean_y = (weight * x).sum(1) / total, (weight * y).sum(1) / total
    centred = x[None] - mean_x[:, None]
    slopes = (weight * centred * (y - mean_y[:, None])).sum(1) / (weight * centred**2).sum(1)
    return np.stack([mean_y - slopes * mean_x, slopes], 1)
