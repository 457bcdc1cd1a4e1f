"""The best size and the tokens that go with it against compute, as every method has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plum_jax.scaling.plots import look

# Table A3 of 2203.15556 unrounded, as 2404.10102 read it: (log A, log B, alpha, beta) of approach 3.
HOFFMANN = (6.0073404, 6.0179186, 0.33917084, 0.2849083)
# How far from its line a band widens the axis.
WIDEST = 6.0
HOFFMANN_NAME = "Hoffmann et al. 2022 (text)"


def hoffmann_optimum(flops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """N* and D* of Hoffmann et al.'s approach 3 at these FLOPs, for C = 6 N D."""
    log_a, log_b, alpha, beta = HOFFMANN
    product = np.asarray(flops, float) / 6
    balance = np.exp((np.log(alpha / beta) + log_a - log_b) / (alpha + beta))
    return balance * product ** (beta / (alpha + beta)), product ** (alpha / (alpha + beta)) / balance


def optimum_against_compute(
    methods: Sequence[Mapping[str, Any]],
    parabolas: Sequence[Mapping[str, Any]],
    optima: Sequence[Mapping[str, Any]],
    points: pl.DataFrame,
    *,
    band: float = 0.9,
    hoffmann: bool = True,
) -> Figure:
    """N* and D* against C side by side: lines with bands, optima of the budgets, the best held-out run.

    Args:
      methods: of the loss in fits.json; those without a frontier are left out.
      parabolas: iso-FLOP fit's; refused ones are hollow.
      optima: of the interpolation; [] without.
      points: all runs, for the held-out ones.
      band: confidence of the bands, for the legend.
      hoffmann: draw the published law of text models, too.
    """
    shown = [method for method in methods if method["frontier"]]
    held_out = best_of_budgets(points.filter(pl.col("held_out")), "loss")
    with look.look():
        figure = look.new_figure(9.6, 4.0)
        for place, field in enumerate("ND"):
            axes = figure.add_subplot(1, 2, place + 1)
            seen = [*_lines(axes, shown, field), *_optima(axes, parabolas, optima, field)]
            flops = np.concatenate([np.asarray(m["frontier"]["flops"]) for m in shown] or [points["C"].to_numpy()])
            ends = np.geomspace(flops.min(), flops.max(), 2)
            if hoffmann:
                axes.plot(ends, hoffmann_optimum(ends)[place], color=look.FAINT, linewidth=1.0, linestyle="--")
            if len(held_out):
                axes.scatter(held_out["C"], held_out[field], marker="*", s=110, c="none", edgecolors=look.INK, zorder=5)
                seen += held_out[field].to_list()
            axes.set_xlim(look.log_limits(flops, 0.03))
            axes.set_ylim(look.log_limits(np.array(seen or points[field].to_list(), float), 0.05))
            look.flops_axis(axes.xaxis)
            look.count_axis(axes.yaxis, "best parameters N*" if field == "N" else "best tokens D*")
        legend = _legend(shown, parabolas, optima, band, hoffmann, bool(len(held_out)))
        handles, labels = zip(*legend, strict=True)
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    return figure


def best_of_budgets(points: pl.DataFrame, value: str, maximise: bool = False) -> pl.DataFrame:
    """The best finished run of each budget (of all, without budgets)."""
    shown = points.filter(pl.col("status") == "finished").drop_nulls(["N", "D", "C", value])
    if not len(shown):
        return shown
    best = pl.col(value).max() if maximise else pl.col(value).min()
    groups = best.over("budget") if "budget" in shown.columns else best
    return shown.filter(pl.col(value) == groups)


def _lines(axes: Axes, methods: Sequence[Mapping[str, Any]], field: str) -> list[float]:
    drawn: list[float] = []
    for i, method in enumerate(methods):
        frontier, colour = method["frontier"], look.SERIES[i % len(look.SERIES)]
        axes.plot(frontier["flops"], frontier[field], color=colour, linestyle=look.DASHES[i % len(look.DASHES)])
        low, high = (np.array(frontier[f"{field}_{end}"], float) for end in ("low", "high"))
        axes.fill_between(frontier["flops"], low, high, color=colour, alpha=0.10, linewidth=0)
        drawn += list(frontier[field])
        axes.plot(
            np.tile(frontier["flops"], (2, 1)).T, np.stack([low, high], 1), color=colour, linewidth=0.4, alpha=0.6
        )
        # A band that knows nothing may run out of the picture.
        middle = np.array(frontier[field], float)
        drawn += [*np.maximum(low, middle / WIDEST), *np.minimum(high, middle * WIDEST)]
    return drawn


def _optima(
    axes: Axes, parabolas: Sequence[Mapping[str, Any]], optima: Sequence[Mapping[str, Any]], field: str
) -> list[float]:
    for accepted in (True, False):
        here = [p for p in parabolas if p["accepted"] == accepted and p[field] is not None and p["coefficients"]]
        face = look.INK if accepted else "none"
        axes.scatter(
            [p["budget"] for p in here], [p[field] for p in here],
            marker="o", s=26, c=face, edgecolors=look.INK, linewidths=0.9, zorder=4,
        )  # fmt: skip
    inner = [o for o in optima if o[field] is not None]
    axes.scatter([o["budget"] for o in inner], [o[field] for o in inner], marker="+", s=36, c=look.INK, zorder=4)
    return [p[field] for p in parabolas if p["accepted"]] + [o[field] for o in inner]


def _legend(
    methods: Sequence[Mapping[str, Any]],
    parabolas: Sequence[Mapping[str, Any]],
    optima: Sequence[Mapping[str, Any]],
    band: float,
    hoffmann: bool,
    held_out: bool,
) -> list[tuple[Any, str]]:
    signs = [
        (look.key("", look.SERIES[i % len(look.SERIES)], look.DASHES[i % len(look.DASHES)]), _named(method))
        for i, method in enumerate(methods)
    ]
    if hoffmann:
        signs.append((look.key("", look.FAINT, "--", linewidth=1.0), HOFFMANN_NAME))
    if any(p["accepted"] for p in parabolas):
        signs.append((look.key("o"), "optimum of a parabola"))
    if any(not p["accepted"] and p["coefficients"] for p in parabolas):
        signs.append((look.key("o", filled=False), "refused parabola"))
    if any(o["N"] is not None for o in optima):
        signs.append((look.key("+"), "optimum by interpolation"))
    if held_out:
        signs.append((look.key("*", filled=False, markersize=10), "best held-out run"))
    return [*signs, (look.key("s", look.FAINT, alpha=0.3, markersize=8), f"bands: {100 * band:g}%")]


def _named(method: Mapping[str, Any]) -> str:
    return f"{method['name']}, a = {method['a']['value']:.2f}" if method["a"] else str(method["name"])
