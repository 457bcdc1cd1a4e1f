"""Loss against compute, and what of it can still be reduced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plum_jax.scaling.plots import look
from plum_jax.scaling.plots.frontier import best_of_budgets


def loss_against_compute(
    points: pl.DataFrame,
    law: Mapping[str, Any] | None,
    *,
    forecast: Sequence[Mapping[str, Any]] = (),
    best_possible: float | None = None,
    band: float = 0.9,
    label: str = "held-out loss (nats a token)",
) -> Figure:
    """All finished runs in grey, the best of each budget in the colour of its size, the law's frontier, the forecast.

    Args:
      points: runs, held-out ones too.
      law: the method of fits.json that has E and a frontier with losses; None draws none.
      forecast: `best` of forecast.json; a bar with a hollow diamond each. What came is a star.
      best_possible: loss of the best model there can be, where it is known.
      band: confidence of band and bars, for the legend.
      label: of the vertical axis.
    """
    shown = points.filter(pl.col("status") == "finished").drop_nulls(["C", "loss"])
    with look.look():
        figure = look.new_figure(6.6, 4.2)
        axes = figure.add_subplot()
        axes.scatter(shown["C"], shown["loss"], s=14, c=look.FAINT, alpha=0.45, linewidths=0)
        signs = [(look.key("o", look.FAINT, alpha=0.5), "run")]
        signs += _envelope(axes, shown)
        signs += _law(axes, law, band)
        signs += _forecast(axes, forecast, shown, band)
        if best_possible is not None:
            axes.axhline(best_possible, color=look.INK, linestyle=look.DASHES[2], linewidth=1.2)
            signs.append((look.key("", look.INK, look.DASHES[2]), f"best possible, {best_possible:.3g}"))
        drawn = [float(y) for y in axes.dataLim.intervaly if np.isfinite(y)] + shown["loss"].to_list()
        drawn += [v for v in (best_possible, law["parameters"]["E"]["value"] if law else None) if v]
        axes.set_ylim(look.log_limits(np.array(drawn), 0.04))
        look.flops_axis(axes.xaxis)
        look.value_axis(axes.yaxis, label)
        look.side_legend(axes, signs)
    return figure


def reducible_loss(
    points: pl.DataFrame, law: Mapping[str, Any], *, band: float = 0.9, label: str = "loss − E (nats a token)"
) -> Figure:
    """Loss above the irreducible E of the law, on logarithmic axes: straight along the frontier if the form holds.

    Args:
      points: runs; those at or below E cannot be drawn and are counted in the legend.
      law: the method of fits.json that has E and a frontier with losses.
      band: confidence, for the legend.
      label: of the vertical axis.
    """
    E, frontier = law["parameters"]["E"], law["frontier"]
    shown = points.filter(pl.col("status") == "finished").drop_nulls(["C", "loss"])
    above = shown.filter(pl.col("loss") > E["value"])
    with look.look():
        figure = look.new_figure(6.6, 4.0)
        axes = figure.add_subplot()
        held_out = above["held_out"]
        for chosen, face in ((~held_out, look.FAINT), (held_out, "none")):
            here = above.filter(chosen)
            axes.scatter(here["C"], here["loss"] - E["value"], s=16, c=face, edgecolors=look.FAINT, linewidths=0.8)
        signs = [(look.key("o", look.FAINT), "run")]
        signs += [(look.key("o", look.FAINT, filled=False), "held out")] if held_out.any() else []
        curve = np.array(frontier["loss"], float) - E["value"]
        axes.plot(frontier["flops"], curve, color=look.SERIES[0])
        signs.append((look.key("", look.SERIES[0], "-"), f"law, E = {E['value']:.3g}"))
        for end, dash in (("low", look.DASHES[1]), ("high", look.DASHES[2])):
            if E[end] is not None:
                best = best_of_budgets(shown, "loss").filter(pl.col("loss") > E[end]).sort("C")
                axes.plot(best["C"], best["loss"] - E[end], color=look.SERIES[2], linestyle=dash, linewidth=1.0)
                signs.append((look.key("", look.SERIES[2], dash), f"best runs, were E {E[end]:.3g}"))
        if len(above) < len(shown):
            signs.append((look.key("", look.INK), f"{len(shown) - len(above)} runs below E"))
        axes.set_ylim(look.log_limits(np.concatenate([curve, (above["loss"] - E["value"]).to_numpy()]), 0.05))
        look.flops_axis(axes.xaxis)
        look.value_axis(axes.yaxis, label)
        look.side_legend(axes, signs)
    return figure


def _envelope(axes: Axes, shown: pl.DataFrame) -> list[tuple[Any, str]]:
    """The best fitted run of each budget, by size."""
    best = best_of_budgets(shown.filter(~pl.col("held_out")), "loss").sort("N")
    sizes = best["N"].unique().sort().to_list()
    colours = dict(zip(sizes, look.steps(len(sizes)), strict=True)) if sizes else {}
    named = "size" in best.columns
    signs = []
    for i, N in enumerate(sizes):
        here = best.filter(pl.col("N") == N)
        axes.scatter(here["C"], here["loss"], s=40, c=colours[N], marker=look.MARKERS[i % 10], zorder=4)
        name = f"{here['size'][0]}, " if named and here["size"][0] else ""
        signs.append((look.key(look.MARKERS[i % 10], colours[N]), f"best: {name}{look.readable(N)}"))
    return signs


def _law(axes: Axes, law: Mapping[str, Any] | None, band: float) -> list[tuple[Any, str]]:
    if law is None or not law["frontier"] or not law["frontier"]["loss"]:
        return []
    frontier, E = law["frontier"], law["parameters"]["E"]
    axes.plot(frontier["flops"], frontier["loss"], color=look.SERIES[0])
    low, high = (np.array(frontier[key], float) for key in ("loss_low", "loss_high"))
    axes.fill_between(frontier["flops"], low, high, color=look.SERIES[0], alpha=0.18, linewidth=0)
    axes.axhline(E["value"], color=look.SERIES[0], linestyle=look.DASHES[1], linewidth=1.0)
    return [
        (look.key("", look.SERIES[0], "-"), f"law at the best size, {100 * band:g}%"),
        (look.key("", look.SERIES[0], look.DASHES[1]), f"irreducible, E = {E['value']:.3g}"),
    ]


def _forecast(
    axes: Axes, forecast: Sequence[Mapping[str, Any]], shown: pl.DataFrame, band: float
) -> list[tuple[Any, str]]:
    return forecast_signs(axes, forecast, shown, "loss", band)


def forecast_signs(
    axes: Axes, forecast: Sequence[Mapping[str, Any]], shown: pl.DataFrame, metric: str, band: float
) -> list[tuple[Any, str]]:
    """Draws the forecast of each held-out budget with its interval, and a star where its best run came out."""
    signs: list[tuple[Any, str]] = []
    known = [best for best in forecast if best.get(metric)]
    for best in known:
        value = best[metric]
        bar = [[value["value"] - value["low"]], [value["high"] - value["value"]]]
        axes.errorbar(
            [best["budget"]], [value["value"]], yerr=bar, fmt="D", color=look.SERIES[2],
            markerfacecolor="none", markersize=8, capsize=4, zorder=7,
        )  # fmt: skip
    if known:
        signs.append((look.key("D", look.SERIES[2], filled=False), f"forecast, {100 * band:g}%"))
    came = best_of_budgets(shown.filter(pl.col("held_out")), metric, maximise=metric != "loss")
    if len(came):
        axes.scatter(came["C"], came[metric], marker="*", s=130, c=look.INK, zorder=6)
        signs.append((look.key("*", look.INK, markersize=10), "best held-out run"))
    return signs
