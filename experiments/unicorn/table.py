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

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
Z = 1.96
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
            cells = " | ".join(figure([row[metric] for row in some]) for metric in titles)
            print(f"| {model} | {cells} | {costs(some, task.removesuffix('_known'))} |")
        print(f"\n| {task} | less | {' | '.join(titles.values())} |\n|{'---|' * 6}")
        for model, some in by_model.items():
            if "base" in some[0]:
                cells = " | ".join(difference(some, metric) for metric in titles)
                print(f"| {model} | {some[0]['base']} | {cells} |")
        print()
    rows = read("results_search.jsonl")
    print(f"| judged queries | NDCG@10 | R@10 | queries | seeds | seconds |\n|{'---|' * 6}")
    for name in dict.fromkeys(row["name"] for row in rows):
        some = [row for row in rows if row["name"] == name]
        cells = " | ".join(figure([row[m] for row in some]) if m in some[0] else "" for m in ("ndcg@10", "recall@10"))
        seconds = np.mean([row.get("wall_seconds", 0.0) for row in some])
        print(f"| {name} | {cells} | {some[0]['queries']:,} | {len(some)} | {seconds:,.0f} |")
    some = [row for row in rows if "base" in row]
    cells = " | ".join(difference(some, metric) for metric in ("ndcg@10", "recall@10"))
    print(f"| {some[0]['name']} less {some[0]['base']} | {cells} | | | |")


def read(file: str) -> list[Row]:
    """Rows of a file."""
    return [json.loads(row) for row in (HERE / file).read_text().splitlines()]


def costs(rows: Sequence[Row], task: str) -> str:
    """Seeds, examples of the task in a pass, parameters, and seconds of training."""
    seconds = np.mean([row["train_seconds"] for row in rows])
    return f"{len(rows)} | {rows[0]['examples'][task]:,} | {rows[0]['parameters']:,} | {seconds:,.0f}"


def difference(rows: Sequence[Row], metric: str) -> str:
    """The mean over seeds with its 95% interval: the seeds share their examples, so that the error over examples does
    not fall with their number; that of the seeds does.
    """
    found, low, high = (np.array([row[f"{metric}_difference{end}"] for row in rows]) for end in ("", "_low", "_high"))
    of_examples = np.mean(high - low) / (2 * Z)
    of_seeds = np.std(found, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else 0.0
    half = Z * np.hypot(of_examples, of_seeds)
    return f"{signed(found.mean())} [{signed(found.mean() - half)}, {signed(found.mean() + half)}]"


def signed(value: float) -> str:
    """As the pages write it: a sign, no zero before the point."""
    return f"{value:+.4f}".replace("0.", ".", 1).replace("-", "−")


def figure(values: Sequence[float]) -> str:
    """The mean, with its standard error where there are seeds."""
    text = f"{np.mean(values):.4f}"[1:]
    if len(values) == 1:
        return text
    return f"{text} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.4f}".replace("± 0", "± ")


if __name__ == "__main__":
    main()
