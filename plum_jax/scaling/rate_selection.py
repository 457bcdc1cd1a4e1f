"""Which form of a bounded metric to trust: each is fitted below the largest budget and judged on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from plum_jax.scaling.bounded_forms import Form
from plum_jax.scaling.bounded_metrics import RatePoints, fit_rate


@dataclasses.dataclass(frozen=True)
class Trial:
    """How a form that was fitted below the largest budget predicts that budget.

    Attributes:
      form: name.
      predicted: best rate at the budget.
      observed: best rate that was measured there.
      error: predicted - observed.
      cells_rms: root mean square error over all cells of the budget; None for a form of C alone.
      why_not: why the form could not be tried; "" when it was.
    """

    form: str
    predicted: float
    observed: float
    error: float
    cells_rms: float | None
    why_not: str = ""


def try_on_largest_budget(
    forms: Sequence[Form],
    points: RatePoints,
    budget: np.ndarray,
    cell: np.ndarray,
    predicted_loss: np.ndarray,
    floor: float | None = 0.0,
) -> list[Trial]:
    """Every form fitted below the largest budget, judged on it, the best first.

    Args:
      forms: to try.
      points: all runs that may be fitted, the largest budget's too.
      budget: intended FLOPs, [points].
      cell: what is the same but for the seed, [points]; a cell's rate is the mean over its seeds.
      predicted_loss: [points]; what a loss law that was fitted below the largest budget gives.
      floor: rate by chance.
    """
    largest = budget == budget.max()
    below, above = points.take(~largest), points.take(largest)
    front = best_of_budgets(points, budget, cell) & ~largest
    cells, means = _means(cell[largest], above.rate)
    observed = float(means.max())
    trials = []
    for form in forms:
        budgets_below = np.unique(budget[front]).size
        if form.of_compute and budgets_below <= form.parameters:
            why = (
                f"{form.parameters} parameters through the best of {budgets_below} budgets: nothing is left to judge by"
            )
            trials.append(Trial(form.name, np.nan, observed, np.nan, None, why))
            continue
        try:
            fit = fit_rate(form, points.take(front) if form.of_compute else below, floor)
        except ValueError as error:
            trials.append(Trial(form.name, np.nan, observed, np.nan, None, str(error)))
            continue
        rates = fit.rate(above.N, above.D, above.C, predicted_loss[largest])
        _, predicted = _means(cell[largest], rates)
        best = float(predicted.max())
        rms = None if form.of_compute else float(np.sqrt(np.mean((predicted - means) ** 2)))
        trials.append(Trial(form.name, best, observed, best - observed, rms))
    return sorted(trials, key=lambda t: (np.isnan(t.error), abs(t.error)))


def best_of_budgets(points: RatePoints, budget: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Mask of the runs of the best cell of each budget: what the forms of C alone describe.

    A budget with one size is its own best, so without an iso-FLOP grid the mask holds all.
    """
    mask = np.zeros(len(budget), bool)
    for value in np.unique(budget):
        here = budget == value
        cells, means = _means(cell[here], points.rate[here])
        mask |= here & (cell == cells[int(np.argmax(means))])
    return mask


def _means(cell: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cells, which = np.unique(cell, return_inverse=True)
    return cells, np.bincount(which, value) / np.bincount(which)
