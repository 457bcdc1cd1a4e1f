"""The exponent a under every convention, as a forest plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from plum_jax.scaling.plots import look


def convention_forest(rows: Sequence[Mapping[str, Any]], interval: Mapping[str, float | None] | None) -> Figure:
    """One line a convention: a by the parametric law (filled) and by parabolas (hollow).

    Args:
      rows: of the sensitivity table, the first as analysed.
      interval: of a as analysed; drawn as a band through all lines.
    """
    with look.look():
        figure = look.new_figure(7.6, 1.1 + 0.3 * len(rows))
        axes = figure.add_subplot()
        if interval is not None and interval["low"] is not None and interval["high"] is not None:
            axes.axvspan(interval["low"], interval["high"], color=look.SERIES[0], alpha=0.15, linewidth=0)
        for key, sign, face in (("a", "o", look.SERIES[0]), ("iso_flop_a", "s", "none")):
            places = [i for i, row in enumerate(rows) if row[key] is not None]
            colour = look.SERIES[0] if key == "a" else look.SERIES[1]
            values = [rows[i][key] for i in places]
            axes.scatter(values, places, marker=sign, s=34, c=face, edgecolors=colour, linewidths=1.2, zorder=3)
        for i, row in enumerate(rows):
            if row["a"] is None and row["iso_flop_a"] is None:
                axes.text(
                    0.02, i, row["why_not"] or "no fit", transform=axes.get_yaxis_transform(), va="center", fontsize=7
                )
        axes.set_yticks(range(len(rows)), [row["change"] for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel("exponent a of N* ~ C^a")
        signs = [
            (look.key("o", look.SERIES[0]), "parametric law"),
            (look.key("s", look.SERIES[1], filled=False), "parabolas"),
            (look.key("s", look.SERIES[0], alpha=0.25, markersize=9), "interval as analysed"),
        ]
        handles, labels = zip(*signs, strict=True)
        figure.legend(handles, labels, loc="outside upper right", ncols=3)
    return figure
