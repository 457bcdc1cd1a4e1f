"""Loss (or recall) against size at equal compute, with the parabola of each budget and its optimum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from plum_jax.scaling.plots import look


def iso_flop_curves(
    points: pl.DataFrame,
    parabolas: Sequence[Mapping[str, Any]],
    *,
    value: str = "loss",
    label: str = "held-out loss (nats a token)",
    confidence: float = 0.9,
) -> Figure:
    """One curve a budget: runs, the parabola, and the best size with its interval.

    Runs that no parabola uses are crosses, held-out runs are hollow; a parabola that its gates refused is dashed and
    has no optimum.

    Args:
      points: runs (fields of `scaling.run_fields`), all of them.
      parabolas: `StudyResults.parabolas`.
      value: column of points.
      label: of the vertical axis.
      confidence: of the intervals of the best size.
    """
    shown = points.filter(pl.col("status") == "finished").drop_nulls(["N", "budget", value])
    budgets = sorted(shown["budget"].unique())
    colours = dict(zip(budgets, look.steps(len(budgets)), strict=True))
    with look.look():
        figure = look.new_figure(6.6, 4.2)
        axes = figure.add_subplot()
        for i, budget in enumerate(budgets):
            runs = shown.filter(pl.col("budget") == budget)
            _runs(axes, runs, value, colours[budget], look.MARKERS[i % 10], not_fitted(runs, parabolas))
        for parabola in parabolas:
            _parabola(axes, parabola, colours[parabola["budget"]], shown, value, confidence)
        axes.set_xlim(look.log_limits(shown["N"].to_numpy()))
        axes.set_ylim(look.plain_limits(shown[value].to_numpy()))
        look.count_axis(axes.xaxis, "parameters N")
        axes.set_ylabel(label)
        if "size" in shown.columns:
            named = shown.drop_nulls("size")
            look.size_axis(axes, named["size"].to_list(), named["N"].to_list())
        look.side_legend(axes, _legend(budgets, colours, shown, parabolas), "FLOPs")
    return figure


def not_fitted(points: pl.DataFrame, parabolas: Sequence[Mapping[str, Any]]) -> pl.Series:
    """Whether a run is drawn as a cross: left out by a rule, or by the gate of a parabola."""
    refused = [run for parabola in parabolas for run in parabola["rejected_runs"]]
    return points["excluded"].is_not_null() | points["run"].is_in(refused)


def _runs(axes: Axes, runs: pl.DataFrame, value: str, colour: str, marker: str, unused: pl.Series) -> None:
    for chosen, face in ((~unused & ~runs["held_out"], colour), (~unused & runs["held_out"], "none")):
        here = runs.filter(chosen)
        axes.scatter(
            here["N"], here[value], s=22, marker=marker, c=face, edgecolors=colour, linewidths=0.9, alpha=0.9, zorder=3
        )
    here = runs.filter(unused)
    axes.scatter(here["N"], here[value], s=16, marker="x", c=colour, linewidths=0.9, alpha=0.55, zorder=2.5)


def _parabola(
    axes: Axes, parabola: Mapping[str, Any], colour: str, shown: pl.DataFrame, value: str, confidence: float
) -> None:
    if not parabola["coefficients"]:
        return
    sizes = shown.filter(pl.col("budget") == parabola["budget"])["N"].to_numpy()
    N = np.geomspace(sizes.min(), sizes.max(), 200)
    curve = np.polyval(parabola["coefficients"][::-1], np.log(N))
    if not parabola["accepted"]:
        axes.plot(N, curve, color=colour, linewidth=1.0, linestyle=look.DASHES[2], alpha=0.8)
        return
    axes.plot(N, curve, color=colour, linewidth=1.3)
    reach = stats.norm.ppf(0.5 + confidence / 2) * (parabola["log_N_se"] or 0.0)
    best = parabola["N"]
    bar = [[best - best * np.exp(-reach)], [best * np.exp(reach) - best]]
    axes.errorbar(
        [best], [parabola["value"]], xerr=bar, fmt="*", markersize=11, color=look.INK, markerfacecolor=colour,
        markeredgewidth=0.8, capsize=3, elinewidth=1.0, zorder=4,
    )  # fmt: skip


def _legend(
    budgets: Sequence[float],
    colours: Mapping[float, str],
    shown: pl.DataFrame,
    parabolas: Sequence[Mapping[str, Any]],
) -> list[tuple[Any, str]]:
    held_out = set(shown.filter(pl.col("held_out"))["budget"])
    signs = [
        (
            look.key(look.MARKERS[i % 10], colours[b], "" if b in held_out else "-", b not in held_out),
            look.power_of_ten(b),
        )
        for i, b in reversed(list(enumerate(budgets)))
    ]
    if held_out:
        signs.append((look.key("o", look.FAINT, filled=False), "hollow: held out"))
    if any(p["accepted"] for p in parabolas):
        signs.append((look.key("*", look.INK, markersize=10), "optimum, interval"))
    if any(p["coefficients"] and not p["accepted"] for p in parabolas):
        signs.append((look.key("", look.FAINT, look.DASHES[2]), "parabola refused"))
    if not_fitted(shown, parabolas).any():
        signs.append((look.key("x", look.FAINT), "run not fitted"))
    return signs
