"""Charts as inline SVG that takes its colours from the page, so that one picture is readable on light and on dark.

Every function returns SVG text without ids, scripts or addresses of its own.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plum_jax.report import page_svg

# Stand-ins that no chart would use otherwise, replaced in the SVG by variables of the page's style sheet.
_INK = "#010203"
_GRID = "#010204"
_SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06")
_PAGE_COLOURS = {_INK: "var(--ink)", _GRID: "var(--rule)"} | {c: f"var(--series-{i})" for i, c in enumerate(_SERIES, 1)}

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "plum_jax",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}

Points = tuple[Sequence[float], Sequence[float]]  # x, y


def recall_dots(groups: Mapping[str, Mapping[str, tuple[float, float | None]]], label: str, over: str = "users") -> str:
    """One dot a row with a bar of two standard errors on either side.

    Args:
      groups: legend entry (e.g. "seen items kept") -> row name -> (value, standard error or None).
      label: what the horizontal axis measures.
      over: what the standard errors are over.
    """
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 0.7 + 0.45 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        for i, (group, values) in enumerate(groups.items()):
            rows = [names.index(name) + 0.22 * (i - (len(groups) - 1) / 2) for name in values]
            means = [mean for mean, _ in values.values()]
            bars = [0.0 if se is None else 2 * se for _, se in values.values()]
            fill = _SERIES[i] if i == 0 else "none"
            axes.errorbar(
                means, rows, xerr=bars, fmt="o", color=_SERIES[i], markerfacecolor=fill, label=group, capsize=3
            )
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{label} (bars: two standard errors over {over})")
        if len(groups) > 1:
            figure.legend(loc="outside upper right", ncols=len(groups))
        return _svg(figure, f"{label} of each model with error bars")


def curves(
    series: Mapping[str, Points],
    *,
    title: str,
    ylabel: str,
    xlabel: str = "training step",
    tokens_per_step: float | None = None,
    smooth: bool = False,
) -> str:
    """Lines against the training step; where tokens per step are known, a second axis above counts tokens.

    Args:
      series: name -> (steps, values).
      xlabel: where it is not the step.
      smooth: draw the values faintly and their running mean (a fortieth of the run wide) strongly.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.add_subplot()
        for i, (name, (steps, values)) in enumerate(series.items()):
            x, y = np.asarray(steps, float), np.asarray(values, float)
            width = len(y) // 40
            if smooth and width > 1:
                axes.plot(x, y, color=_SERIES[i % len(_SERIES)], linewidth=0.7, alpha=0.35)
                x, y = x[width - 1 :], np.convolve(y, np.ones(width) / width, mode="valid")
            axes.plot(
                x, y, color=_SERIES[i % len(_SERIES)], linewidth=1.6, label=name, marker="" if smooth else "o", ms=4
            )
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        axes.set_xlim(left=0)
        if tokens_per_step:
            _token_axis(axes, tokens_per_step)
        if len(series) > 1:
            axes.legend()
        return _svg(figure, f"{title}: {', '.join(series)}")


def points(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]], *, xlabel: str, falling: bool = False
) -> str:
    """Points with bars, a panel beside the other, joined within a series.

    Args:
      panels: title -> series -> (x, y, half of the bar) of each point.
      xlabel: what all horizontal axes measure.
      falling: the axis runs from large to small, as a loss does in training.
    """
    with matplotlib.rc_context(_STYLE):
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(3.4 * columns, 3.0 * rows + 0.3), layout="constrained")
        for place, (title, series) in enumerate(panels.items()):
            axes = figure.add_subplot(rows, columns, place + 1)
            for i, (name, of_series) in enumerate(series.items()):
                x, y, half = zip(*of_series, strict=True)
                marker, colour = "osD^vP"[i % 6], _SERIES[i % len(_SERIES)]
                axes.errorbar(x, y, yerr=half, marker=marker, ms=5, color=colour, label=name, capsize=3, linewidth=1)
            axes.axhline(0, color=_INK, linewidth=0.8)
            axes.set(title=title, xlabel=xlabel)
            if falling:
                axes.invert_xaxis()
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        return _svg(figure, f"{', '.join(panels)} against {xlabel}")


def trade_off(series: Mapping[str, Mapping[str, tuple[float, float, float]]], *, xlabel: str, ylabel: str) -> str:
    """What models cost against what they are worth, cost by powers of ten: a point a model, with its name beside it.

    Args:
      series: legend entry -> name of a model -> (cost, worth, half of the bar).
      xlabel, ylabel: what is measured.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for i, (group, of_group) in enumerate(series.items()):
            x, y, half = zip(*of_group.values(), strict=True)
            colour = _SERIES[i % len(_SERIES)]
            axes.errorbar(x, y, yerr=half, fmt="osD^vP"[i % 6], ms=5, color=colour, label=group, capsize=2, linewidth=1)
            for name, place in zip(of_group, zip(x, y, strict=True), strict=True):
                axes.annotate(name, place, textcoords="offset points", xytext=(5, 4), fontsize=8)
        axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log")
        figure.legend(loc="outside upper right", ncols=len(series))
        return _svg(figure, f"{ylabel} of each model against {xlabel}")


def code_usage(codes: np.ndarray, codebook_sizes: Sequence[int]) -> str:
    """How many items each code of each level holds, most used code first.

    Args:
      codes: int [N, L].
      codebook_sizes: W of each level.
    """
    levels = codes.shape[1]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.7 * levels, 2.4), layout="constrained")
        for level in range(levels):
            counts = np.sort(np.bincount(codes[:, level], minlength=codebook_sizes[level]))[::-1]
            axes = figure.add_subplot(1, levels, level + 1)
            axes.fill_between(np.arange(len(counts)), counts, step="mid", color=_SERIES[0], alpha=0.6, linewidth=0)
            axes.axhline(len(codes) / len(counts), color=_INK, linewidth=0.8, linestyle="--")
            axes.set(title=f"level {string.ascii_uppercase[level]}", xlabel="code, most used first", ylim=(0, None))
            if level == 0:
                axes.set_ylabel("items")
        return _svg(figure, "Items held by each code, by level; the dashed line is perfectly even use")


def prefix_tree(codes: np.ndarray, smallest_share: float = 0.002) -> str:
    """The tree of Semantic IDs as an icicle: a box is a prefix, its width the items below it, its parent above it.

    Args:
      codes: int [N, L].
      smallest_share: neighbours narrower than this share of all items become one faint box (alone: under a pixel).
    """
    total, levels = codes.shape
    order = by_prefix_size(codes)
    sorted_codes = codes[order]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10.5, 0.5 + 0.42 * levels), layout="constrained")
        axes = figure.add_subplot()
        families = np.cumsum(np.r_[0, sorted_codes[1:, 0] != sorted_codes[:-1, 0]])
        for level in range(levels):
            for start, width, apart in prefix_boxes(sorted_codes, level, smallest_share * total):
                alpha = 0.85 - 0.5 * level / levels if apart else 0.15
                box = [(start, max(width - 0.0008 * total, 0.5))]
                colour = _SERIES[families[start] % len(_SERIES)]
                axes.broken_barh(box, (level + 0.06, 0.88), facecolors=colour, alpha=alpha)
        axes.set_yticks(np.arange(levels) + 0.5, [f"level {letter}" for letter in string.ascii_uppercase[:levels]])
        axes.set(xlim=(0, total), ylim=(levels, 0), xlabel=f"{total:,} items, grouped by prefix")
        axes.grid(visible=False)
        axes.tick_params(left=False)
        return _svg(
            figure, "Prefix tree of the Semantic IDs: the width of a box is the number of items that share the prefix"
        )


def prefix_boxes(sorted_codes: np.ndarray, level: int, smallest: float) -> Iterator[tuple[int, int, bool]]:
    """Start and width of each prefix of `level + 1` codes, and whether it is drawn apart from its small siblings."""
    differs = sorted_codes[1:] != sorted_codes[:-1]
    starts = np.r_[0, np.flatnonzero(differs[:, : level + 1].any(axis=1)) + 1]
    new_parent = np.r_[True, differs[:, :level].any(axis=1)][starts]
    small_start = None
    for start, width, first in zip(starts, np.diff(np.r_[starts, len(sorted_codes)]), new_parent, strict=True):
        if small_start is not None and (first or width >= smallest):
            yield int(small_start), int(start - small_start), False
            small_start = None
        if width >= smallest:
            yield int(start), int(width), True
        elif small_start is None:
            small_start = start
    if small_start is not None:
        yield int(small_start), int(len(sorted_codes) - small_start), False


def by_prefix_size(codes: np.ndarray) -> np.ndarray:
    """Row order in which equal prefixes are adjacent and, at each level, larger subtrees come first."""
    keys: list[np.ndarray] = []
    for level in range(codes.shape[1]):
        _, prefix, counts = np.unique(codes[:, : level + 1], axis=0, return_inverse=True, return_counts=True)
        prefix = prefix.reshape(-1)
        keys += [-counts[prefix], prefix]
    return np.lexsort(keys[::-1])


def _token_axis(axes: Axes, tokens_per_step: float) -> None:
    """Counts millions of tokens along the top."""
    millions = tokens_per_step / 1e6
    top = axes.secondary_xaxis(
        "top", functions=(lambda step: np.multiply(step, millions), lambda tokens: np.divide(tokens, millions))
    )
    top.set_xlabel("million tokens")
    top.spines["top"].set_visible(False)


def _svg(figure: Figure, description: str) -> str:
    """SVG text of the figure in the page's colours."""
    return page_svg.page_svg(figure, description, _PAGE_COLOURS)
