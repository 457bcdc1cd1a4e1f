"""Which of the sizes that were run is the best at a budget, and how sure that is: no curve is assumed."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.scaling.iso_flop import IsoFlopPoints


@dataclasses.dataclass(frozen=True)
class BestSize:
    """One budget.

    Attributes:
      budget: FLOPs.
      sizes: that were run, rising, [sizes].
      probability: of each to be the best, under the points' errors, [sizes].
      ahead: how much better the best is than the second, in standard errors of the difference.
    """

    budget: float
    sizes: np.ndarray
    probability: np.ndarray
    ahead: float

    @property
    def best(self) -> float:
        """The most probable size."""
        return float(self.sizes[int(np.argmax(self.probability))])


def best_sizes(points: IsoFlopPoints, maximise: bool = False, draws: int = 4000, seed: int = 0) -> list[BestSize]:
    """The best size of every budget with two sizes or more.

    Args:
      points: with standard errors; runs of one size at a budget are averaged.
      maximise: for a metric that is better when larger.
      draws: of independent Gaussian errors.
      seed: of the draws.

    Raises:
      ValueError: points without standard errors.
    """
    if points.standard_error is None:
        raise ValueError("expected the standard error of every point: without it nothing is more or less probable")
    generator = np.random.default_rng(seed)
    found = []
    for budget in np.unique(points.budget):
        here = np.flatnonzero(points.budget == budget)
        sizes, which = np.unique(points.N[here], return_inverse=True)
        if len(sizes) < 2:
            continue
        count = np.bincount(which)
        value = np.bincount(which, points.value[here]) / count * (1 if maximise else -1)
        error = np.sqrt(np.bincount(which, points.standard_error[here] ** 2)) / count
        drawn = value + error * generator.standard_normal((draws, len(sizes)))
        probability = np.bincount(np.argmax(drawn, 1), minlength=len(sizes)) / draws
        second, first = np.argsort(value)[-2:]
        ahead = (value[first] - value[second]) / np.hypot(error[first], error[second])
        found.append(BestSize(float(budget), sizes, probability, float(ahead)))
    return found
