"""How well the parameters of the law are known: the bootstrap in pairs, and profiles of the objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from plum_jax.scaling.plots import look

SHOWN = ("E", "alpha", "beta", "a")


def bootstrap_pairs(draws: Sequence[Sequence[float]], parameters: Mapping[str, Any], exponent: float) -> Figure:
    """E, alpha, beta and the exponent a of every draw, each against each; the fit itself in orange.

    Args:
      draws: `law_draws` of fits.json: (log A, log B, log E, alpha, beta) each.
      parameters: of the law, with `value`.
      exponent: a of the fit.
    """
    table = np.array(draws, float)
    columns = {"E": np.exp(table[:, 2]), "alpha": table[:, 3], "beta": table[:, 4]}
    columns["a"] = columns["beta"] / (columns["alpha"] + columns["beta"])
    best = {name: parameters[name]["value"] for name in ("E", "alpha", "beta")} | {"a": exponent}
    limits = {name: _limits(values, best[name]) for name, values in columns.items()}
    with look.look():
        figure = look.new_figure(7.0, 6.2)
        grid = figure.subplots(len(SHOWN), len(SHOWN))
        for row, y in enumerate(SHOWN):
            for column, x in enumerate(SHOWN):
                axes = grid[row][column]
                if column > row:
                    axes.axis("off")
                    continue
                axes.set_xlim(limits[x])
                if row == column:
                    axes.hist(columns[x], bins=np.linspace(*limits[x], 25), color=look.SERIES[0], alpha=0.6)
                    axes.axvline(best[x], color=look.SERIES[2])
                    axes.set_yticks([])
                    axes.grid(visible=False)
                else:
                    axes.scatter(columns[x], columns[y], s=5, c=look.SERIES[0], alpha=0.4, linewidths=0)
                    axes.scatter([best[x]], [best[y]], marker="+", s=70, c=look.SERIES[2], zorder=4)
                    axes.set_ylim(limits[y])
                axes.locator_params(nbins=4)
                axes.tick_params(labelsize=7, labelleft=column == 0 and row > 0, labelbottom=row == len(SHOWN) - 1)
                if row == len(SHOWN) - 1:
                    axes.set_xlabel(x)
                if column == 0 and row > 0:
                    axes.set_ylabel(y)
    return figure


def profiles(found: Sequence[Mapping[str, Any]]) -> Figure:
    """Least objective against each fixed parameter, with the interval that the likelihood ratio leaves.

    Args:
      found: `loss.profiles` of fits.json.
    """
    with look.look():
        figure = look.new_figure(9.6, 3.2)
        for place, profile in enumerate(found):
            axes = figure.add_subplot(1, len(found), place + 1)
            order = np.argsort(profile["values"])
            values, objective = (np.array(profile[key], float)[order] for key in ("values", "objective"))
            axes.plot(values, objective / np.nanmin(objective), color=look.SERIES[0], marker=".", markersize=4)
            axes.axvspan(profile["low"], profile["high"], color=look.SERIES[0], alpha=0.15, linewidth=0)
            axes.set_ylim(0.98, min(float(np.nanmax(objective / np.nanmin(objective))), 3.0))
            width = profile["high"] - profile["low"]
            axes.set_xlim(
                max(values.min(), profile["low"] - 1.5 * width), min(values.max(), profile["high"] + 1.5 * width)
            )
            axes.set_xlabel(profile["parameter"])
            axes.locator_params(nbins=5)
            if place == 0:
                axes.set_ylabel("objective over its least")
    return figure


def _limits(values: np.ndarray, best: float) -> tuple[float, float]:
    """All but the farthest draws, and the fit."""
    low, high = np.nanquantile(values, (0.01, 0.99))
    low, high = min(low, best), max(high, best)
    room = 0.1 * (high - low) or 0.01
    return float(low - room), float(high + room)
