"""What was forecast for the held-out runs beside what came, and the two plain baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from plum_jax.scaling.plots import look
from plum_jax.scaling.plots.frontier import best_of_budgets

LABELS = {"loss": "held-out loss (nats a token)", "recall": "recall@10"}


def predicted_against_observed(forecast: Mapping[str, Any], points: pl.DataFrame) -> Figure:
    """For loss and recall: every held-out run, the best of each budget (star), the baselines, and the line of truth.

    Args:
      forecast: content of forecast.json.
      points: runs; held-out ones that finished are what came.
    """
    came = points.filter(pl.col("status") == "finished", pl.col("held_out"))
    metrics = [m for m in LABELS if any(m in cell for cell in forecast["cells"]) and m in came.columns]
    metrics = [m for m in metrics if came[m].is_not_null().any()]
    with look.look():
        figure = look.new_figure(4.6 * max(len(metrics), 1), 4.3)
        for place, metric in enumerate(metrics):
            axes = figure.add_subplot(1, len(metrics), place + 1)
            observed = dict(came.select("run", metric).drop_nulls().iter_rows())
            seen: list[float] = []
            for cell in forecast["cells"]:
                if cell["name"] in observed and metric in cell:
                    value = observed[cell["name"]]
                    seen += [value, *_point(axes, value, cell[metric], "o", look.SERIES[0], 5)]
            best = best_of_budgets(came.drop_nulls(metric), metric, maximise=metric != "loss")
            for entry in forecast["best"]:
                value = _observed_best(best, entry["budget"], metric)
                if value is None or metric not in entry:
                    continue
                seen += [value, *_point(axes, value, entry[metric], "*", look.SERIES[2], 13)]
                for sign, (_, figures) in zip(("^", "v"), sorted(entry["baselines"].items()), strict=False):
                    axes.scatter([value], [figures[metric]], marker=sign, s=42, c=look.FAINT, zorder=4)
                    seen.append(figures[metric])
            low, high = min(seen), max(seen)
            room = 0.08 * (high - low) or 0.01
            axes.plot([low - room, high + room], [low - room, high + room], color=look.INK, linewidth=0.8)
            axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room))
            axes.set_xlabel(f"observed {LABELS[metric]}")
            axes.set_ylabel("predicted")
            axes.set_box_aspect(1)
        _legend(figure, forecast)
    return figure


def _observed_best(best: pl.DataFrame, budget: float, metric: str) -> float | None:
    if "budget" in best.columns:
        best = best.filter((pl.col("budget") / budget - 1).abs() < 1e-6)
    return float(best[metric][0]) if len(best) else None


def _point(
    axes: Any, observed: float, interval: Mapping[str, float], sign: str, colour: str, size: float
) -> Sequence[float]:
    value, low, high = (interval[key] for key in ("value", "low", "high"))
    bar = [[value - low], [high - value]]
    axes.errorbar(
        [observed], [value], yerr=bar, fmt=sign, color=colour, markersize=size, capsize=2.5, elinewidth=1.0, zorder=3
    )
    return low, high


def _legend(figure: Figure, forecast: Mapping[str, Any]) -> None:
    percent = f"{100 * forecast['confidence']:g}%"
    signs = [
        (look.key("o", look.SERIES[0]), f"held-out run, {percent}"),
        (look.key("*", look.SERIES[2], markersize=11), f"best of its budget, {percent}"),
    ]
    names = sorted({name for entry in forecast["best"] for name in entry["baselines"]})
    signs += [(look.key(sign, look.FAINT), name) for sign, name in zip(("^", "v"), names, strict=False)]
    signs.append((look.key("", look.INK, "-", linewidth=0.8), "predicted = observed"))
    handles, labels = zip(*signs, strict=True)
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
