"""What the parametric law leaves over, against everything it should not depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plum_jax.scaling.plots import look


def residuals_of(points: pl.DataFrame, parameters: Mapping[str, Any]) -> pl.DataFrame:
    """Finished runs with `residual`: log of loss over the law's.

    Args:
      points: runs.
      parameters: E, A, B, alpha and beta of fits.json, each with `value`.
    """
    E, A, B, alpha, beta = (parameters[name]["value"] for name in ("E", "A", "B", "alpha", "beta"))
    shown = points.filter(pl.col("status") == "finished").drop_nulls(["N", "D", "C", "loss"])
    law = E + A * pl.col("N") ** -alpha + B * pl.col("D") ** -beta
    return shown.with_columns((pl.col("loss") / law).log().alias("residual"))


def residual_plots(points: pl.DataFrame, parameters: Mapping[str, Any], seed_sd: float | None = None) -> Figure:
    """Residuals in percent against N, D, C and by seed; the grey band is two standard deviations between seeds.

    Args:
      points: runs; left-out ones are crosses, held-out ones hollow.
      parameters: of the law.
      seed_sd: of log loss; None draws no band.
    """
    table = residuals_of(points, parameters)
    used, ahead = table["excluded"].is_null() & ~table["held_out"], table["held_out"] & table["excluded"].is_null()
    percent = 100 * np.expm1(table["residual"].to_numpy())
    spread = 1.3 * float(np.quantile(np.abs(percent[(used | ahead).to_numpy()]), 0.93)) + 0.1
    outside = np.abs(percent) > spread
    with look.look():
        figure = look.new_figure(9.6, 5.6)
        for place, field in enumerate(("N", "D", "C", "seed")):
            axes = figure.add_subplot(2, 2, place + 1)
            where = _seed_places(table) if field == "seed" else table[field].to_numpy()
            for chosen, sign, face, colour in (
                (used, "o", look.SERIES[0], look.SERIES[0]),
                (ahead, "o", "none", look.SERIES[2]),
                (~used & ~ahead, "x", look.FAINT, look.FAINT),
            ):
                mask = chosen.to_numpy() & ~outside
                axes.plot(
                    where[mask], percent[mask], sign, color=colour, markerfacecolor=face, markersize=4.2, alpha=0.85
                )
            for sign, beyond, edge in (("^", percent > spread, spread), ("v", percent < -spread, -spread)):
                axes.scatter(where[beyond], np.full(beyond.sum(), edge), s=22, marker=sign, c=look.SERIES[4], zorder=4)
            axes.axhline(0, color=look.INK, linewidth=0.8)
            if seed_sd:
                axes.axhspan(-200 * seed_sd, 200 * seed_sd, color=look.FAINT, alpha=0.15, linewidth=0)
            axes.set_ylim(-1.08 * spread, 1.08 * spread)
            _label(axes, field, table)
            if place % 2 == 0:
                axes.set_ylabel("loss over law (%)")
        signs = [(look.key("o", look.SERIES[0]), "fitted")]
        signs += [(look.key("o", look.SERIES[2], filled=False), "held out")] if ahead.any() else []
        signs += [(look.key("x", look.FAINT), "left out")] if (~used & ~ahead).any() else []
        signs += [(look.key("s", look.FAINT, alpha=0.3), "two sd between seeds")] if seed_sd else []
        if outside.any():
            signs.append((look.key("^", look.SERIES[4]), f"outside, up to {np.abs(percent).max():.0f}%"))
        handles, labels = zip(*signs, strict=True)
        figure.legend(handles, labels, loc="outside upper left", ncols=5)
    return figure


def _label(axes: Axes, field: str, table: pl.DataFrame) -> None:
    if field == "seed":
        seeds = sorted(set(table["seed"].drop_nulls().to_list())) if "seed" in table.columns else []
        axes.set_xticks(range(len(seeds)), seeds)
        axes.set_xlabel("seed")
    elif field == "C":
        look.flops_axis(axes.xaxis)
    else:
        look.count_axis(axes.xaxis, {"N": "parameters N", "D": "tokens D"}[field])


def _seed_places(table: pl.DataFrame) -> np.ndarray:
    """Place of each run's seed, spread a little so that points do not cover each other; NaN without a seed."""
    if "seed" not in table.columns:
        return np.full(len(table), np.nan)
    seeds = sorted(set(table["seed"].drop_nulls().to_list()))
    index = np.array([np.nan if s is None else seeds.index(s) for s in table["seed"]], float)
    return index + 0.3 * (np.arange(len(table)) % 11 / 10 - 0.5)
