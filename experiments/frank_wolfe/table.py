"""Tables and picture of the study, from results.jsonl beside this file: `python experiments/frank_wolfe/table.py`.

Prints the Markdown that README.md shows, and writes curves.svg. Suboptimality is the objective less the greatest lower
bound (objective less gap) that any run of the problem has proved, so it is at most so much.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
METHODS = {
    "sfw": "stochastic Frank-Wolfe",
    "sfw_saga": "its SAGA variant",
    "momentum": "Mokhtari et al.",
    "substitute": "Lu and Freund",
    "pairwise": "pairwise, all rows a step",
    "deterministic": "deterministic, all rows a step",
}
HEADER = ("suboptimality", "gap", "slope of the gap", "estimate / gap", "seconds", "seeds")


def main() -> None:
    """Prints a table a problem and draws them all."""
    rows = [json.loads(line) for line in (HERE / "results.jsonl").read_text().splitlines()]
    names = list(dict.fromkeys(row["data"] for row in rows))
    for name in names:
        of_data = [row for row in rows if row["data"] == name]
        bound = max(row["greatest_bound"] for row in of_data)
        passes = of_data[0]["curves"]["passes"][-1]
        print(f"| {name}, {passes:,} passes | {' | '.join(HEADER)} |\n|{'---|' * (len(HEADER) + 1)}")
        for method, title in METHODS.items():
            print(line(title, [row for row in of_data if row["method"] == method], bound))
        print()
    draw(rows, names)


def line(title: str, rows: list[Row], bound: float) -> str:
    """A row of the table: means over seeds."""
    figures = [
        f"{np.mean([row['objective'] for row in rows]) - bound:.1e}",
        f"{np.mean([row['gap'] for row in rows]):.1e}",
        f"{np.mean([slope(row) for row in rows]):.2f}",
        f"{np.mean([row['estimate_over_gap'] for row in rows]):.2f}",
        f"{np.mean([row['wall_seconds'] for row in rows]):.1f}",
        str(len(rows)),
    ]
    return f"| {title} | {' | '.join(figures)} |"


def slope(row: Row) -> float:
    """Of log gap against log passes, from 8 passes on."""
    passes, gap = (np.array(row["curves"][name]) for name in ("passes", "gap"))
    late = passes >= 8
    return float(np.polyfit(np.log(passes[late]), np.log(gap[late]), 1)[0])


def draw(rows: list[Row], names: list[str]) -> None:
    """curves.svg: the true gap (lines) and the estimate (dots) by passes, means over seeds."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "plum_jax"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.6), layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        for number, (method, title) in enumerate(METHODS.items()):
            runs = [row["curves"] for row in rows if row["data"] == name and row["method"] == method]
            passes = runs[0]["passes"]
            gap, estimate = (np.mean([run[key] for run in runs], axis=0) for key in ("gap", "estimated_gap"))
            axis.loglog(passes, gap, color=f"C{number}", label=title)
            axis.loglog(passes, estimate, ".", color=f"C{number}", markersize=4)
        axis.set(title=name.replace("_", " "), xlabel="passes")
    axes[0].set_ylabel("Frank-Wolfe gap (dots: its estimate)")
    axes[0].legend(fontsize=7)
    figure.savefig(HERE / "curves.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
