"""Tables of the study, from the results beside this file: `python experiments/m6rec/table.py`.

Prints the Markdown that README.md shows: means over seeds with their standard errors, and differences on the same
events with an interval of 95%, of the users, drawn anew, and of the seeds.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from plum_jax.report.figures import difference_over_users, mean_and_error

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
# In which order; rows of what has run only.
ORDER = ("din_all_labels", "din", "m6", "m6_no_statistics", "m6_zero_shot", "m6_option_adapter", "m6_option")
ORDER += ("m6_adapter", "m6_shared", "m6_late_1", "m6_late_1_kept", "m6_exits", "m6_exits_75", "m6_pruned")
ORDER += ("m6_int8", "m6_pruned_int8")
METRICS = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss"}
# What the paper has of the same comparison, on its own data.
PAPER = {
    "m6": "AUC .7508 against DIN's .7332, .7995 against .7611",
    "m6_late_1": "−.0696 AUC (1 of 24 layers late)",
    "m6_option_adapter": "+.008, +.011, +.002 accuracy on three sets (tuned on M6-Edge)",
    "m6_pruned": "−.015, −.027, −.033 (to a fifth)",
}


def main() -> None:
    """Prints the tables of rankers, differences, costs, writing and retrieval."""
    found = by_name(read("results.jsonl"))
    rows = {name: found[name] for name in ORDER if name in found}
    ranked = {**METRICS, "labels": "labels", "parameters": "parameters", "train_seconds": "seconds"}
    table("MovieLens-1M, AUC and costs", rows, ranked)
    print(f"| | less | {' | '.join(METRICS.values())} | the paper |\n|{'---|' * 6}")
    for name, some in rows.items():
        if "base" in some[0]:
            cells = " | ".join(difference_over_users(some, f"{metric}_difference") for metric in METRICS)
            print(f"| {name} | {some[0]['base']} | {cells} | {PAPER.get(name, '')} |")
    costs = {"tuned_parameters": "tuned", "bytes": "bytes", "milliseconds": "ms of 32 rows", "layers": "layers"}
    print()
    table("what it costs", {name: some for name, some in rows.items() if "bytes" in some[0]}, costs)
    written = {"matched": "names a right category", "unique": "unlike the others", "perplexity": "perplexity"}
    table("written", by_name(read("results_write.jsonl")), {**written, "texts": "texts"})
    found = {"recall@100": "HR@100, all items", "cold_recall@100": "HR@100, held-out items", "recall@10": "HR@10"}
    table("Amazon Beauty", by_name(read("results_retrieval.jsonl")), {**found, "train_seconds": "seconds"})


def table(title: str, rows: Mapping[str, Sequence[Row]], columns: Mapping[str, str]) -> None:
    """One row a name: means with errors over seeds of figures below 10, whole numbers of the others."""
    print(f"| {title} | {' | '.join(columns.values())} | seeds |\n|{'---|' * (len(columns) + 2)}")
    for name, some in rows.items():
        print(f"| {name} | {' | '.join(cell(some, column) for column in columns)} | {len(some)} |")
    print()


def cell(rows: Sequence[Row], column: str) -> str:
    """One figure; empty where a row has none."""
    if column == "labels":
        number = rows[0].get("examples", rows[0]["label"]["training"])
        return "all" if number is None else f"{number:,}"
    values = [row[column] for row in rows if column in row]
    if not values:
        return ""
    shown: Callable[[float], str] = "{:,.0f}".format if np.mean(values) >= 1000 else "{:.1f}".format
    return mean_and_error(values) if max(values) <= 1 else shown(float(np.mean(values)))


def by_name(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of one name, a seed each."""
    return {name: [row for row in rows if row["name"] == name] for name in dict.fromkeys(row["name"] for row in rows)}


def read(file: str) -> list[Row]:
    """Rows of a file."""
    return [json.loads(row) for row in (HERE / file).read_text().splitlines()]


if __name__ == "__main__":
    main()
