"""The look that all figures share: colours, fonts, numbers on axes, and a figure as a file or as part of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from plum_jax.report import page_svg

# The light theme of the page's style sheet (plum_jax/report/page.css), from which a test says if they part.
INK, FAINT, RULE = "#1f2328", "#646a73", "#dadde1"
SERIES = ("#6b3fa0", "#0f7b6c", "#b3541e", "#1f6fb2", "#a8326e", "#6d6a1f")
# Of rising darkness, so that their order is seen without colours, too.
STEPS = ("#fca636", "#f2844b", "#e26561", "#cc4977", "#b32c8e", "#9511a1", "#7100a8", "#4903a0", "#1b068d")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "<", ">")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)), (0, (3, 1.2)), (0, (9, 3)))
PAGE_COLOURS = (
    {INK: "var(--ink)", FAINT: "var(--faint)", RULE: "var(--rule)"}
    | {colour: f"var(--series-{i})" for i, colour in enumerate(SERIES, 1)}
    | {colour: f"var(--step-{i})" for i, colour in enumerate(STEPS, 1)}
)
FORMATS = ("png", "svg", "pdf")

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    # Letters as outlines, and whole fonts in PDF: a file looks the same where the font is not.
    "svg.fonttype": "path",
    "svg.hashsalt": "plum_jax",
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}


def look() -> AbstractContextManager[None]:
    """matplotlib with this look, for as long as the context lasts."""
    return matplotlib.rc_context(_STYLE)


def new_figure(width: float = 6.0, height: float = 3.8) -> Figure:
    """An empty figure, in inches; to be made and filled within `look()`."""
    return Figure(figsize=(width, height), layout="constrained")


def settle(figure: Figure) -> None:
    """Lays the figure out once and for all, so that it need not be laid out for every file."""
    with look():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def for_page(figure: Figure, description: str) -> str:
    """The figure as inline SVG in the page's colours, light and dark."""
    with matplotlib.rc_context({**_STYLE, "svg.fonttype": "none"}):
        return page_svg.page_svg(figure, description, PAGE_COLOURS)


def write_figure(figure: Figure, path: Any, file_format: str) -> None:
    """The figure as a file with a white ground; the same figure gives the same bytes.

    Args:
      path: where to; a path or an open binary file.
      file_format: one of `FORMATS`.
    """
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[file_format]
    with look():
        figure.savefig(path, format=file_format, facecolor="white", metadata=metadata)


def steps(count: int) -> list[str]:
    """So many colours in order, first to last; neighbours may be equal beyond nine."""
    if count == 1:
        return [STEPS[6]]
    return [STEPS[round(i * (len(STEPS) - 1) / (count - 1))] for i in range(count)]


def readable(value: float, digits: int = 3) -> str:
    """ "5.99k", "1.2M", "70B": a count of parameters or tokens."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit * (1 - 0.5 * 10**-digits):
            return f"{float(f'{value / unit:.{digits}g}'):g}{name}"
    return f"{value:.{digits}g}"


def power_of_ten(value: float, digits: int = 2) -> str:
    """ "10²¹" or "2.5×10¹⁰": a count of FLOPs."""
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = f"{value / 10**exponent:.{digits}g}"
    if mantissa == "10":
        mantissa, exponent = "1", exponent + 1
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if mantissa == "1" else f"{mantissa}×{power}"


def flops_axis(axis: Axis, label: str = "compute C (FLOPs)") -> None:
    """A logarithmic axis of FLOPs; to be called when all is drawn."""
    _log_axis(axis, lambda value: power_of_ten(value), label)


def count_axis(axis: Axis, label: str) -> None:
    """A logarithmic axis of parameters or tokens; to be called when all is drawn."""
    _log_axis(axis, lambda value: readable(value), label)


def value_axis(axis: Axis, label: str) -> None:
    """A logarithmic axis of losses or miss rates, often less than a decade; to be called when all is drawn."""
    _log_axis(axis, lambda value: f"{value:.3g}", label)


def _log_axis(axis: Axis, text: Any, label: str) -> None:
    axis._set_axes_scale("log")  # type: ignore[attr-defined]
    low, high = axis.get_view_interval()
    axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_label_text(label)


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round values within the limits that lie evenly on a logarithmic axis: powers of ten, 1-2-5, or plain steps."""
    decades = math.log10(high / low)
    if decades >= 0.75:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for within in ((1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
            ticks = [m * 10.0**e for e in exponents for m in within if low <= m * 10.0**e <= high]
            if len(ticks) <= most:
                return ticks
        return ticks[:: math.ceil(len(ticks) / most)]
    return [float(v) for v in MaxNLocator(5).tick_values(low, high) if low <= v <= high]


def size_axis(axes: Axes, names: Sequence[str], parameters: Sequence[float]) -> None:
    """Names of the model sizes above the axes, at their parameters; nothing where they would not fit.

    Args:
      axes: with parameters on a logarithmic horizontal axis, its limits set.
      names: of the sizes.
      parameters: of each.
    """
    low, high = axes.get_xlim()
    shown = sorted({n: name for name, n in zip(names, parameters, strict=True) if low <= n <= high}.items())
    if not 0 < len(shown) <= 16:
        return
    top = axes.secondary_xaxis("top")
    top.set_xscale("log")
    top.xaxis.set_major_locator(FixedLocator([n for n, _ in shown]))
    top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: min(shown, key=lambda s: abs(s[0] - value))[1]))
    top.xaxis.set_minor_locator(NullLocator())
    top.tick_params(axis="x", rotation=55, labelsize=6.5, length=2, labelcolor=FAINT, pad=1)
    for label in top.get_xticklabels():
        label.set(ha="left", rotation_mode="anchor")
    top.spines["top"].set_visible(False)


def key(marker: str = "", colour: str = INK, line: Any = "", filled: bool = True, **more: Any) -> Line2D:
    """A sign for a legend."""
    face = colour if filled else "none"
    return Line2D([], [], marker=marker, color=colour, linestyle=line, markerfacecolor=face, **more)


def side_legend(axes: Axes, signs: Iterable[tuple[Line2D, str]], title: str | None = None) -> None:
    """A legend at the right of the axes, where it hides nothing."""
    handles, labels = zip(*signs, strict=True)
    legend = axes.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, title=title, alignment="left"
    )
    legend.get_title().set_fontsize(8)


def plain_limits(values: np.ndarray, margin: float = 0.06) -> tuple[float, float]:
    """Limits a little wider than the finite values."""
    good = np.asarray(values, float)
    good = good[np.isfinite(good)]
    room = margin * float(np.ptp(good)) or margin
    return float(good.min()) - room, float(good.max()) + room


def log_limits(values: np.ndarray, margin: float = 0.06) -> tuple[float, float]:
    """Limits a little wider than the positive, finite values, for a logarithmic axis."""
    good = np.asarray(values, float)
    good = good[np.isfinite(good) & (good > 0)]
    low, high = np.log(good.min()), np.log(good.max())
    room = max(margin * (high - low), 0.02)
    return float(np.exp(low - room)), float(np.exp(high + room))
