"""Loss against learning rate for every cell with trials: is the best rate an inner one?"""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from plum_jax.scaling.plots import look


@dataclasses.dataclass(frozen=True)
class Trials:
    """The learning-rate trials of one size at one budget.

    Attributes:
      size: name, else the parameters.
      N: parameters.
      budget: FLOPs; None without.
      rates: peak learning rates, rising, [trials].
      losses: mean over seeds, [trials].
      best: rate at the minimum of the parabola through the best and its neighbours in log rate; None at an edge.
    """

    size: str
    N: float
    budget: float | None
    rates: np.ndarray
    losses: np.ndarray
    best: float | None


def trials_of(points: pl.DataFrame, least: int = 3) -> list[Trials]:
    """Every size and budget with at least so many learning rates, by size and budget."""
    if "learning_rate" not in points.columns:
        return []
    shown = points.filter(pl.col("status") == "finished").drop_nulls(["N", "loss", "learning_rate"])
    keys = ["N", "budget"] if "budget" in shown.columns else ["N", "D"]
    found = []
    for key, cell in sorted(shown.group_by(keys), key=lambda item: str(item[0])):
        means = cell.group_by("learning_rate").agg(pl.col("loss").mean()).sort("learning_rate")
        if len(means) >= least:
            rates, losses = means["learning_rate"].to_numpy(), means["loss"].to_numpy()
            name = cell["size"][0] if "size" in cell.columns and cell["size"][0] else look.readable(float(cell["N"][0]))
            budget = float(key[1]) if keys[1] == "budget" and key[1] is not None else None
            found.append(Trials(name, float(cell["N"][0]), budget, rates, losses, _inner_best(rates, losses)))
    return sorted(found, key=lambda t: (t.N, t.budget or 0.0))


def learning_rate_curves(trials: list[Trials], label: str = "held-out loss (nats a token)") -> Figure:
    """One curve a size and budget; a star at an inner optimum, an open square where the best rate is at an edge."""
    with look.look():
        figure = look.new_figure(6.6, 4.0)
        axes = figure.add_subplot()
        signs = []
        for i, (cell, colour) in enumerate(zip(trials, look.steps(len(trials)), strict=True)):
            marker = look.MARKERS[i % 10]
            axes.plot(cell.rates, cell.losses, marker=marker, color=colour, linewidth=1.2)
            budget = "" if cell.budget is None else f", {look.power_of_ten(cell.budget)} FLOPs"
            signs.append((look.key(marker, colour, "-"), f"{cell.size}{budget}"))
            lowest = float(cell.losses.min())
            if cell.best is None:
                edge = float(cell.rates[int(np.argmin(cell.losses))])
                axes.scatter([edge], [lowest], marker="s", s=90, c="none", edgecolors=look.INK, zorder=5)
            else:
                axes.scatter([cell.best], [lowest], marker="*", s=100, c=colour, edgecolors=look.INK, zorder=5)
        if any(cell.best is not None for cell in trials):
            signs.append((look.key("*", look.INK, markersize=9), "inner optimum"))
        if any(cell.best is None for cell in trials):
            signs.append((look.key("s", look.INK, filled=False, markersize=8), "best is at an edge"))
        axes.set_xscale("log")
        look.value_axis(axes.xaxis, "peak learning rate")
        axes.set_ylabel(label)
        look.side_legend(axes, signs)
    return figure


def _inner_best(rates: np.ndarray, losses: np.ndarray) -> float | None:
    i = int(np.argmin(losses))
    if i in (0, len(losses) - 1):
        return None
    c2, c1, _ = np.polyfit(np.log(rates[i - 1 : i + 2]), losses[i - 1 : i + 2], 2)
    return float(np.exp(-c1 / (2 * c2)))
