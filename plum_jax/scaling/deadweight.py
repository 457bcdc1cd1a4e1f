"""Deadweight compute: what a choice of size wasted, as a share of the compute that it cost."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.scaling.design import Law, loss, optimum
from plum_jax.scaling.loss_results import Interval, LawFit
from plum_jax.scaling.power_line import tails

HALVINGS = 50
LEAST_SHARE = 1e-12


@dataclasses.dataclass(frozen=True)
class Deadweight:
    """For one budget.

    Attributes:
      flops: of the budget.
      N: size that was chosen.
      share: 1 - C' / C, where C' is the least compute with which the best size reaches the loss of the chosen one.
    """

    flops: float
    N: float
    share: Interval


def deadweight_share(law: Law, N: float, flops: float, flops_per_nd: float) -> float:
    """Share of `flops` that is wasted by training N parameters with it, by a law; 0 for the best size."""
    reached = float(loss(law, N, flops / flops_per_nd / N))
    low, high = np.log(LEAST_SHARE), 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        best = float(loss(law, *optimum(law, flops * np.exp(middle), flops_per_nd)))
        low, high = (low, middle) if best < reached else (middle, high)
    return float(1 - np.exp((low + high) / 2))


def deadweight(law: LawFit, N: np.ndarray, flops: np.ndarray, confidence: float = 0.9) -> list[Deadweight]:
    """Of each budget's chosen size, with the interval of the law's draws.

    Args:
      law: what is taken for the truth.
      N: chosen sizes, [budgets].
      flops: the budgets.
      confidence: of the intervals.
    """
    found = []
    for size, budget in zip(N, flops, strict=True):
        share = deadweight_share(law.fit, float(size), float(budget), law.flops_per_nd)
        drawn = [deadweight_share(d, float(size), float(budget), law.flops_per_nd) for d in law.laws()]
        low, high = np.quantile(drawn, tails(confidence))
        found.append(Deadweight(float(budget), float(size), Interval(share, float(low), float(high))))
    return found
