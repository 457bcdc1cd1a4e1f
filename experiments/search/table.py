"""Tables of the study, from the results beside this file: `python experiments/search/table.py`.

Prints the Markdown that README.md shows: means over seeds with their standard errors, and differences on the same
searches with an interval of 95%, of the searches, drawn anew, and of the seeds.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from plum_jax.report.figures import difference_over_users, mean_and_error, plain

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
TASKS = {"search": "new queries", "search_known": "known queries"}
# What the paper says of each change, as far as its text could be read.
PAPER = {
    "no_text": "has the part; no figure",
    "no_graph": "has the part; no figure",
    "no_terms": "has the part; no figure",
    "no_category": "has the part; no figure",
    "no_user": "has the part; no figure",
    "uniform": "worse: hard ones after uniform are best",
    "softmax": "fits no threshold; no figure",
}
METRICS = {"recall@10": "R@10", "recall@100": "R@100", "ndcg@10": "NDCG@10"}


def main() -> None:
    """Prints the towers and their parts, the threshold, quality, the index, and the judged queries."""
    rows = read("results.jsonl")
    for task, title in TASKS.items():
        towers(title, [row for row in rows if row["task"] == task])
    threshold(rows)
    quality(read("results_quality.jsonl"))
    index(read("results_index.jsonl"))
    judged(read("results_judged.jsonl"))


def read(file: str) -> list[Row]:
    """Rows of a file."""
    return [json.loads(row) for row in (HERE / file).read_text().splitlines()]


def by(rows: Sequence[Row], name: str) -> dict[Any, list[Row]]:
    """Rows by a value, in the order of the first of each."""
    return {value: [row for row in rows if row[name] == value] for value in dict.fromkeys(row[name] for row in rows)}


def means(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Cells of means over seeds."""
    return " | ".join(mean_and_error([row[metric] for row in rows]) for metric in metrics)


def towers(title: str, rows: Sequence[Row]) -> None:
    """The arms, and what each is less than the whole."""
    print(f"| {title} | {' | '.join(METRICS.values())} | seeds | parameters | seconds |\n|{'---|' * 7}")
    for model, some in by(rows, "model").items():
        seconds = np.mean([row["train_seconds"] for row in some])
        print(f"| {model} | {means(some, list(METRICS))} | {len(some)} | {some[0]['parameters']:,} | {seconds:,.0f} |")
    print(f"\n| {title} | less | {' | '.join(METRICS.values())} | the paper |\n|{'---|' * 6}")
    for model, some in by(rows, "model").items():
        if "base" in some[0]:
            cells = " | ".join(difference_over_users(some, f"{metric}_difference") for metric in METRICS)
            print(f"| {model} | {some[0]['base']} | {cells} | {PAPER[model]} |")
    print()


def threshold(rows: Sequence[Row]) -> None:
    """What scores above the threshold of training."""
    kinds = [f"{title}: {what} above" for title in TASKS.values() for what in ("target", "items")]
    print(f"| above the threshold | {' | '.join(kinds)} |\n|{'---|' * 5}")
    for model, some in by([row for row in rows if "target_above" in row], "model").items():
        cells = [means([row for row in some if row["task"] == task], ("target_above", "items_above")) for task in TASKS]
        print(f"| {model} | {' | '.join(cells)} |")
    print()


def quality(rows: Sequence[Row]) -> None:
    """Lists with quality and without."""
    metrics = {"good@10": "good in the first 10", "recall@10": "R@10", "recall@100": "R@100"}
    print(f"| quality | | {' | '.join(metrics.values())} | seeds |\n|{'---|' * 6}")
    for task, of_task in by(rows, "task").items():
        for side, some in by(of_task, "side").items():
            print(f"| {TASKS[task]} | {side} | {means(some, list(metrics))} | {len(some)} |")
        some = [row for row in of_task if row["side"] == "quality"]
        cells = " | ".join(difference_over_users(some, f"{metric}_difference") for metric in metrics)
        print(f"| {TASKS[task]} | quality less plain | {cells} | |")
    weights = [
        ", ".join(f"{name} {plain(row['weights'][name], 2)}" for name in row["weights"])
        for row in rows
        if "weights" in row
    ]
    print(f"\nWeights by seed: {'; '.join(dict.fromkeys(weights))}.\n")


def index(rows: Sequence[Row]) -> None:
    """Size and recall of the index by effort and shortlist."""
    print(f"| index | of the exact first 10 | R@10 | searches/s | bytes an item | seeds |\n|{'---|' * 6}")
    items = 12_101
    for name, some in by(rows, "name").items():
        _, _, kind, *asked = name.split(".")
        title = "exact" if kind == "exact" else f"effort {kind}, shortlist {asked[0]}"
        speed = np.mean([row["searches_per_second"] for row in some])
        size = np.mean([row["bytes_total"] for row in some]) / items
        found = means(some, ("of_exact@10", "recall@10"))
        print(f"| {title} | {found} | {speed:,.0f} | {size:,.0f} | {len(some)} |")
    parts = [
        f"{part} {np.mean([row[f'bytes_{part}'] for row in rows if row.get('shortlist')]) / items:,.0f}"
        for part in PARTS
    ]
    print(f"\nBytes an item with a shortlist: {', '.join(parts)}.\n")


PARTS = ("codes", "links", "vectors")


def judged(rows: Sequence[Row]) -> None:
    """Judged queries of each set."""
    print(f"| judged queries | | NDCG@10 | R@10 | queries | seeds | seconds |\n|{'---|' * 7}")
    for data, of_data in by(rows, "data").items():
        for name, some in by(of_data, "name").items():
            cells = (mean_and_error([row[m] for row in some]) if m in some[0] else "" for m in ("ndcg@10", "recall@10"))
            seconds = plain(float(np.mean([row.get("wall_seconds", 0.0) for row in some])), 0)
            print(f"| {data} | {name} | {' | '.join(cells)} | {some[0]['queries']:,} | {len(some)} | {seconds} |")
        for name, some in by([row for row in of_data if "base" in row], "name").items():
            cells = (difference_over_users(some, f"{metric}_difference") for metric in ("ndcg@10", "recall@10"))
            print(f"| {data} | {name} less {some[0]['base']} | {' | '.join(cells)} | | | |")


if __name__ == "__main__":
    main()
