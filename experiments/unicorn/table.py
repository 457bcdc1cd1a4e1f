"""Tables of the study, from the results beside this file: `python experiments/unicorn/table.py`.

Prints the Markdown that README.md shows: means over seeds with their standard errors, and differences on the same
examples with an interval of 95%, of the examples, drawn anew, and of the seeds.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from plum_jax.report.figures import difference_over_users, mean_and_error

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
TASKS = ("search", "search_known", "similar", "homepage")
METRICS = {"recall@10": "R@10", "ndcg@10": "NDCG@10"}
REMOVED = {f"{name}_unseen": f"removed: {title}" for name, title in METRICS.items()}


def main() -> None:
    """Prints a table of figures and one of differences for each task, and one of the judged queries."""
    rows = read("results.jsonl")
    titles = {**METRICS, **REMOVED}
    for task in TASKS:
        of_task = [row for row in rows if row["task"] == task]
        models = list(dict.fromkeys(row["model"] for row in of_task))
        by_model = {model: [row for row in of_task if row["model"] == model] for model in models}
        head = " | ".join((task, *titles.values(), "seeds", "examples trained on", "parameters", "seconds"))
        print(f"| {head} |\n|{'---|' * 9}")
        for model, some in by_model.items():
            cells = " | ".join(mean_and_error([row[metric] for row in some]) for metric in titles)
            print(f"| {model} | {cells} | {costs(some, task.removesuffix('_known'))} |")
        print(f"\n| {task} | less | {' | '.join(titles.values())} |\n|{'---|' * 6}")
        for model, some in by_model.items():
            if "base" in some[0]:
                cells = " | ".join(difference_over_users(some, f"{metric}_difference") for metric in titles)
                print(f"| {model} | {some[0]['base']} | {cells} |")
        print()
    rows = read("results_search.jsonl")
    print(f"| judged queries | NDCG@10 | R@10 | queries | seeds | seconds |\n|{'---|' * 6}")
    for name in dict.fromkeys(row["name"] for row in rows):
        some = [row for row in rows if row["name"] == name]
        cells = " | ".join(
            mean_and_error([row[m] for row in some]) if m in some[0] else "" for m in ("ndcg@10", "recall@10")
        )
        seconds = np.mean([row.get("wall_seconds", 0.0) for row in some])
        print(f"| {name} | {cells} | {some[0]['queries']:,} | {len(some)} | {seconds:,.0f} |")
    some = [row for row in rows if "base" in row]
    cells = " | ".join(difference_over_users(some, f"{metric}_difference") for metric in ("ndcg@10", "recall@10"))
    print(f"| {some[0]['name']} less {some[0]['base']} | {cells} | | | |")


def read(file: str) -> list[Row]:
    """Rows of a file."""
    return [json.loads(row) for row in (HERE / file).read_text().splitlines()]


def costs(rows: Sequence[Row], task: str) -> str:
    """Seeds, examples of the task in a pass, parameters, and seconds of training."""
    seconds = np.mean([row["train_seconds"] for row in rows])
    return f"{len(rows)} | {rows[0]['examples'][task]:,} | {rows[0]['parameters']:,} | {seconds:,.0f}"


if __name__ == "__main__":
    main()
