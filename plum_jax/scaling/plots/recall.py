"""Recall against loss and against compute, with the forms that were fitted and what is possible at best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plum_jax.scaling.plots import look
from plum_jax.scaling.plots.loss import forecast_signs


def recall_against_loss(
    points: pl.DataFrame, *, best_possible: float | None = None, label: str = "recall@10"
) -> Figure:
    """Every run by size: one curve for all sizes, or not? Bars are one binomial standard error."""
    shown = points.filter(pl.col("status") == "finished").drop_nulls(["N", "loss", "recall"])
    groups = size_groups(shown)
    with look.look():
        figure = look.new_figure(6.6, 4.0)
        axes = figure.add_subplot()
        signs = []
        for i, ((name, runs), colour) in enumerate(zip(groups, look.steps(len(groups)), strict=True)):
            marker = look.MARKERS[i % 10]
            for held_out in (False, True):
                here = runs.filter(pl.col("held_out") == held_out)
                axes.errorbar(
                    here["loss"], here["recall"], yerr=_errors(here), fmt=marker, color=colour, markersize=5,
                    markerfacecolor="none" if held_out else colour, elinewidth=0.8, alpha=0.9,
                )  # fmt: skip
            signs.append((look.key(marker, colour), name))
        if shown["held_out"].any():
            signs.append((look.key("o", look.FAINT, filled=False), "hollow: held out"))
        signs += _possible(axes, best_possible)
        axes.invert_xaxis()
        axes.set(xlabel="held-out loss (nats a token; better to the right)", ylabel=label)
        look.side_legend(axes, signs, "size")
    return figure


def recall_against_compute(
    points: pl.DataFrame,
    flops: Sequence[float],
    forms: Sequence[Mapping[str, Any]],
    chosen: str,
    *,
    forecast: Sequence[Mapping[str, Any]] = (),
    best_possible: float | None = None,
    band: float = 0.9,
    label: str = "recall@10",
) -> Figure:
    """Runs in grey, the forms' frontiers as lines (the chosen one with its band), forecast and best held-out run.

    Args:
      points: runs.
      flops: where the frontiers are.
      forms: of the rate in fits.json.
      chosen: name of the form to forecast with.
      forecast: `best` of forecast.json.
      best_possible: recall of the best recommender there can be.
      band: confidence, for the legend.
      label: of the vertical axis.
    """
    shown = points.filter(pl.col("status") == "finished").drop_nulls(["C", "recall"])
    fitted = [form for form in forms if not form["why_not"]]
    with look.look():
        figure = look.new_figure(7.4, 4.2)
        axes = figure.add_subplot()
        axes.scatter(shown["C"], shown["recall"], s=14, c=look.FAINT, alpha=0.45, linewidths=0)
        signs = [(look.key("o", look.FAINT, alpha=0.5), "run")]
        for i, form in enumerate(sorted(fitted, key=lambda f: f["form"] != chosen)):
            colour, dash = ((*look.SERIES, look.FAINT) * 2)[i], look.DASHES[i % 6]
            first = form["form"] == chosen
            axes.plot(flops, np.array(form["rate"], float), color=colour, linestyle=dash, linewidth=2 if first else 1.1)
            if first:
                low, high = (np.array(form[key], float) for key in ("rate_low", "rate_high"))
                axes.fill_between(flops, low, high, color=colour, alpha=0.18, linewidth=0)
            text = f"{form['form']} ({100 * band:g}%)" if first else form["form"]
            signs.append((look.key("", colour, dash), text))
        signs += forecast_signs(axes, forecast, shown, "recall", band)
        signs += _possible(axes, best_possible)
        top = max([float(v) for v in shown["recall"]] + [best_possible or 0.0, 0.01])
        axes.set_ylim(0, min(1.0, 1.35 * top))
        look.flops_axis(axes.xaxis)
        axes.set_ylabel(label)
        look.side_legend(axes, signs)
    return figure


def size_groups(runs: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Runs by size; of more than nine sizes, by sixths of the range of log N."""
    sizes = runs["N"].unique().sort().to_list()
    if len(sizes) <= 9:
        groups = [(N, runs.filter(pl.col("N") == N)) for N in sizes]
        named = "size" in runs.columns
        return [
            (f"{g['size'][0]}, {look.readable(N)}" if named and g["size"][0] else look.readable(N), g)
            for N, g in groups
        ]
    edges = np.geomspace(sizes[0] * 0.999, sizes[-1] * 1.001, 7)
    ends = list(zip(edges[:-1], edges[1:], strict=True))
    groups = [
        (f"{look.readable(a, 2)} to {look.readable(b, 2)}", (pl.col("N") > a) & (pl.col("N") <= b)) for a, b in ends
    ]
    return [(name, runs.filter(rule)) for name, rule in groups if len(runs.filter(rule))]


def _errors(runs: pl.DataFrame) -> np.ndarray | None:
    """Binomial standard errors; None without counts."""
    if "users" not in runs.columns or runs["users"].is_null().any():
        return None
    rate = runs["recall"].to_numpy()
    return np.sqrt(rate * (1 - rate) / runs["users"].to_numpy())


def _possible(axes: Axes, best: float | None) -> list[tuple[Any, str]]:
    if best is None:
        return []
    axes.axhline(best, color=look.INK, linestyle=look.DASHES[2], linewidth=1.2)
    return [(look.key("", look.INK, look.DASHES[2]), f"best possible, {best:.3g}")]
