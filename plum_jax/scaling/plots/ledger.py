"""Where the compute of a study went: FLOPs of finished, held-out, unused and failed runs, by budget."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from plum_jax.scaling.plots import look

FATES = ("fitted", "held out", "finished, not fitted", "failed")
_HATCHES = ("", "//", "..", "xx")


def fate() -> pl.Expr:
    """What became of the compute of a run, as one of `FATES`."""
    return (
        pl.when(pl.col("status") != "finished")
        .then(pl.lit("failed"))
        .when(pl.col("excluded").is_not_null())
        .then(pl.lit("finished, not fitted"))
        .when(pl.col("held_out"))
        .then(pl.lit("held out"))
        .otherwise(pl.lit("fitted"))
        .alias("fate")
    )


def compute_ledger(points: pl.DataFrame) -> Figure:
    """Bars of FLOPs and of runs by budget; without budgets one bar.

    A run that failed counts with its budget, where it has one: what it was to cost, not what it had spent.
    """
    table = with_spent(points)
    budgets = sorted(table["group"].unique())
    counted = table.group_by("group", "fate").agg(pl.col("spent").sum(), pl.len().alias("runs"))
    found = {(group, fate): (spent, runs) for group, fate, spent, runs in counted.iter_rows()}
    with look.look():
        figure = look.new_figure(8.4, 0.9 + 0.36 * max(len(budgets), 3))
        for place, label in enumerate(("FLOPs", "runs")):
            axes = figure.add_subplot(1, 2, place + 1)
            left = np.zeros(len(budgets))
            for i, name in enumerate(FATES):
                widths = np.array([found.get((b, name), (0.0, 0))[place] for b in budgets], float)
                axes.barh(
                    range(len(budgets)), widths, left=left, height=0.7, color=_colour(i), hatch=_HATCHES[i],
                    edgecolor=look.INK, linewidth=0.5, label=name if widths.any() else None,
                )  # fmt: skip
                left += widths
            axes.set_xlim(0, 1.04 * max(float(left.max()), 1e-9))
            names = [look.power_of_ten(b) if b else "all runs" for b in budgets]
            axes.set_yticks(range(len(budgets)), names if place == 0 else [""] * len(budgets))
            axes.grid(visible=False, axis="y")
            axes.set_xlabel(label)
            if place == 0:
                axes.set_ylabel("budget (FLOPs)" if len(budgets) > 1 else "")
                axes.xaxis.set_major_formatter(lambda v, _: look.power_of_ten(v) if v > 0 else "0")
                axes.locator_params(axis="x", nbins=4)
                handles, labels = axes.get_legend_handles_labels()
                figure.legend(handles, labels, loc="outside upper left", ncols=4)
    return figure


def with_spent(points: pl.DataFrame) -> pl.DataFrame:
    """The runs with `fate`, `spent` (FLOPs; a failed run's budget where it has none) and `group` (0 without)."""
    own = pl.coalesce("C_spent", "C") if "C_spent" in points.columns else pl.col("C")
    budget = pl.col("budget") if "budget" in points.columns else pl.lit(None, pl.Float64)
    return points.with_columns(
        fate(), pl.coalesce(own, budget).fill_null(0.0).alias("spent"), budget.fill_null(0.0).alias("group")
    )


def _colour(i: int) -> str:
    return (look.SERIES[0], look.SERIES[3], look.RULE, look.SERIES[2])[i]
