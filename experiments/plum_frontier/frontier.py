"""Where PLUM's best size goes with compute, from the points of the paper's figure: the table of README.md.

python experiments/plum_frontier/frontier.py plum_isoflops_digitised.csv
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np

from plum_jax.scaling.best_size import BestSize, best_sizes
from plum_jax.scaling.iso_flop import Gates, IsoFlopFit, IsoFlopPoints, fit_iso_flop
from plum_jax.scaling.loss_analysis import iso_flop_points
from plum_jax.scaling.run_tables import read_runs

COLUMNS = {
    "N": "model",
    "C": "budget_flops",
    "budget": "budget_flops",
    "loss": "train_loss",
    "recall": "recall_at_10_day8",
}
# Of the readings, standard errors.
ERRORS = {"recall": 0.003, "loss": 0.01}
# Below it the paper's two figures disagree about the loss (1.26 and 1.07 at 1e20).
SOFT_BELOW = 6e20
SIZES = {110e6: "110M", 370e6: "370M", 900e6: "900M", 3e9: "3B"}


def points_of(path: pathlib.Path, metric: str, least_budget: float = 0.0) -> IsoFlopPoints:
    """The points of one metric with the error of their reading."""
    table = read_runs(path, COLUMNS).usable(metric)
    return iso_flop_points(table.filter(table["budget"] >= least_budget), metric, ERRORS[metric])


def fit(points: IsoFlopPoints, metric: str) -> IsoFlopFit:
    """Parabolas of four sizes; the readings' error stands in for the scatter that four points cannot show."""
    return fit_iso_flop(points, maximise=metric == "recall", gates=Gates(minimum_sizes=4), draws=2000)


def table(path: pathlib.Path) -> str:
    """One row a budget: the best size run with its probability, and the parabola's optimum with a 90% interval."""
    head = ("FLOPs", "best of the sizes run, Recall@10", "parabola's best", "the same by train loss", "parabola's best")
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|---|"]
    cells: dict[float, dict[str, tuple[str, str]]] = {}
    for metric in ERRORS:
        points = points_of(path, metric)
        parabolas = {p.budget: p for p in fit(points, metric).parabolas}
        for best in best_sizes(points, metric == "recall"):
            p = parabolas[best.budget]
            spread = np.exp(1.645 * p.log_N_se)
            optimum = f"{p.N / 1e6:.0f}M [{p.N / spread / 1e6:.0f}, {p.N * spread / 1e6:.0f}]"
            cells.setdefault(best.budget, {})[metric] = (_sure(best), optimum if p.accepted else f"– ({p.reason})")
    for budget, row in sorted(cells.items()):
        columns = [*row.get("recall", ("–", "–")), *row.get("loss", ("–", "–"))]
        lines.append(f"| {budget:.0e} | {' | '.join(columns)} |".replace("e+", "e"))
    return "\n".join(lines)


def exponents(path: pathlib.Path) -> str:
    """Where the optimum goes, over all budgets and over those whose readings agree, and when a size's turn comes."""
    lines = ["| | N* ~ C^a | 900M is best at | 3B is best at |", "|---|---|---|---|"]
    for metric in ERRORS:
        for least, name in ((0.0, "all budgets"), (SOFT_BELOW, f"from {SOFT_BELOW:.0e}".replace("e+", "e"))):
            found = fit(points_of(path, metric, least), metric)
            if found.N is None:
                lines.append(f"| {metric}, {name} | – ({found.why_not}) | – | – |")
                continue
            low, high = found.N.exponent_interval
            turns = " | ".join(_turn(found.N.flops_for(size)) for size in (900e6, 3e9))
            lines.append(f"| {metric}, {name} | {found.N.exponent:.2f} [{low:.2f}, {high:.2f}] | {turns} |")
    return "\n".join(lines)


def _sure(best: BestSize) -> str:
    order = np.argsort(-best.probability)
    shown = [f"{SIZES[best.sizes[i]]} {100 * best.probability[i]:.0f}%" for i in order if best.probability[i] >= 0.05]
    return ", ".join(shown)


def _turn(flops: tuple[float, float, float]) -> str:
    value, low, high = (f"{v:.0e}".replace("e+", "e") if np.isfinite(v) else "never" for v in flops)
    return f"{value} [{low}, {high}]"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    print(table(pathlib.Path(sys.argv[1])))
    print()
    print(exponents(pathlib.Path(sys.argv[1])))
