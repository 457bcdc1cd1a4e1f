"""Table and picture of the study, from results.jsonl beside this file: `python experiments/init_cpt/table.py`.

Prints the Markdown that README.md shows: the four starts, means over seeds with their standard errors; what a language
model's start and continued pre-training give, paired by seed, with an interval of 95%; and PLUM's own figures. Writes
a picture a corpus, validation recall against fine-tuning steps, as PLUM's Figure 3 has it.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from plum_jax.report import charts, page_svg
from plum_jax.report.figures import difference, mean_and_error

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]

# Start, continued pre-training, and the paper's Recall@10 (Table 5).
ARMS = {"R1": ("random", "no", 0.19), "R2": ("language model", "no", 0.23)}
ARMS |= {"CR1": ("random", "yes", 0.27), "CR2": ("language model", "yes", 0.28)}
METRICS = {"recall@10": "test R@10", "ndcg@10": "N@10", "recall@10_unseen": "removed: R@10", "ndcg@10_unseen": "N@10"}
# (what it is, the arms that have it, those that have not)
EFFECTS = (
    ("language model, without CPT", "R2", "R1"),
    ("language model, with CPT", "CR2", "CR1"),
    ("CPT, random start", "CR1", "R1"),
    ("CPT, language model", "CR2", "R2"),
)
EARLY = (50, 200)  # fine-tuning steps


def main() -> None:
    """Prints two tables for each corpus, and draws it."""
    rows = [json.loads(line) for line in (HERE / "results.jsonl").read_text().splitlines()]
    for data in dict.fromkeys(row["data"] for row in rows):
        of_data = [row for row in rows if row["data"] == data]
        titles = (data, "start", "CPT", *(f"validation R@10, {n} steps" for n in EARLY), *METRICS.values())
        print(f"| {' | '.join((*titles, 'paper', 'seeds', 'training FLOPs'))} |\n|{'---|' * (len(titles) + 3)}")
        for name in ARMS:
            print(line(name, [row for row in of_data if row["name"] == name]))
        print(
            f"\n| {data}, paired by seed | R@10, {EARLY[0]} steps | {EARLY[1]} steps | test R@10 |\n|---|---|---|---|"
        )
        for said, with_it, without in EFFECTS:
            print(f"| {said} ({with_it} less {without}) | {' | '.join(effects(of_data, with_it, without))} |")
        print()
        (HERE / f"{data.lower().replace(' ', '_').replace('-', '_')}.svg").write_text(picture(of_data, data))


def line(name: str, rows: Sequence[Row]) -> str:
    """A row of the first table."""
    start, cpt, paper = ARMS[name]
    figures = [mean_and_error([at_step(row, step) for row in rows]) for step in EARLY]
    figures += [mean_and_error([row[metric] for row in rows]) for metric in METRICS]
    costs = (f"{paper:.2f}".lstrip("0"), str(len(rows)), f"{rows[0]['train_flops']:.2g}")
    return f"| {' | '.join((name, start, cpt, *figures, *costs))} |"


def effects(rows: Sequence[Row], with_it: str, without: str) -> list[str]:
    """What one arm has more than another: at each of `EARLY`, and on the test users."""
    by_seed = {(row["name"], row["seed"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    pairs = [(by_seed[with_it, seed], by_seed[without, seed]) for seed in seeds]
    found = [[at_step(a, step) - at_step(b, step) for a, b in pairs] for step in EARLY]
    return [difference(values) for values in (*found, [a["recall@10"] - b["recall@10"] for a, b in pairs])]


def at_step(row: Row, step: int) -> float:
    """Recall@10 of the validation users after so many steps of fine-tuning."""
    curve = row["validation_curve"]
    return curve["recall@10"][curve["step"].index(step)]


def picture(rows: Sequence[Row], data: str) -> str:
    """SVG: validation recall against fine-tuning steps, a line an arm, means over seeds."""
    lines = {}
    for name in ARMS:
        curves = [row["validation_curve"] for row in rows if row["name"] == name]
        lines[name] = (curves[0]["step"], np.mean([curve["recall@10"] for curve in curves], axis=0).tolist())
    return page_svg.standalone(charts.curves(lines, title=f"{data}, fine-tuning", ylabel="validation Recall@10"))


if __name__ == "__main__":
    main()
