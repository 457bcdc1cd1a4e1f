"""Tables of the study, from the results beside this file: `python experiments/m6rec/table.py`.

Prints the Markdown that README.md shows: means over seeds with their standard errors, and differences on the same
events with an interval of 95%, of the users, drawn anew, and of the seeds; of retrieval by Student's t over the seeds.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plum_jax.report.figures import difference, difference_over_users, interval_over_users, mean_and_error, plain

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
# In which order; rows of what has run only.
ORDER = ("din_all_labels", "din", "m6", "m6_no_statistics", "m6_zero_shot", "m6_option_adapter", "m6_adapter")
ORDER += ("m6_option", "m6_prompt", "m6_imported_random", "m6_imported", "m6_late_1", "m6_late_1_kept", "m6_late_2")
ORDER += ("m6_late_2_kept", "m6_exits", "m6_exits_75", "m6_int8", "m6_pruned", "m6_pruned_int8", "m6_shared")
ORDER += ("m6_narrow", "m6_edge")
METRICS = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss"}
# What the paper has of the same comparison on data of its own: differences of the same sign, and of what they are.
PAPER = {
    "m6": ("+.0176, +.0384", "AUC, DIN with 100 times the labels"),
    "m6_option_adapter": ("+.008, +.011, +.002", "accuracy of M6-Edge"),
    "m6_adapter": ("−.010, −.012, −.006", "the same"),
    "m6_option": ("−.008, −.021, −.018", "the same"),
    "m6_prompt": ("−.018, −.055, −.071", "the same"),
    "m6_late_1": ("−.0696", "AUC, 1 of 24 layers late"),
    "m6_late_2": ("−.0264", "AUC, 3 of 24 layers late"),
    "m6_pruned": ("−.015, −.027, −.033", "accuracy of M6-Edge"),
    "m6_edge": ("−.046, −.045, −.021", "accuracy, distilled"),
}


def main() -> None:
    """Prints the tables of rankers, differences, costs, writing and retrieval."""
    found = by_name(read("results.jsonl"))
    rows = {name: found[name] for name in ORDER if name in found}
    ranked = {**METRICS, "labels": "labels", "parameters": "parameters", "train_seconds": "seconds"}
    table("MovieLens-1M", rows, ranked)
    differences(rows)
    costs = {"tuned_parameters": "tuned", "milliseconds": "ms of 32 rows", "milliseconds of m6": "of m6's"}
    costs |= {"bytes": "bytes", "bytes of m6": "of m6's", "layers": "layers"}
    table("what it costs", {name: some for name, some in rows.items() if "bytes" in some[0]}, costs, of=found["m6"])
    written = {"matched": "names a right category", "unique": "unlike the others", "perplexity": "perplexity"}
    table("written", by_name(read("results_write.jsonl")), {**written, "texts": "texts"})
    retrieval()


def table(title: str, rows: Mapping[str, Sequence[Row]], columns: Mapping[str, str], of: Sequence[Row] = ()) -> None:
    """One row a name: means with errors over seeds; a column "<figure> of m6" has shares of the rows `of`."""
    print(f"| {title} | {' | '.join(columns.values())} | seeds |\n|{'---|' * (len(columns) + 2)}")
    for name, some in rows.items():
        print(f"| {name} | {' | '.join(cell(some, column, of) for column in columns)} | {len(some)} |")
    print()


def cell(rows: Sequence[Row], column: str, of: Sequence[Row]) -> str:
    """One figure; empty where a row has none."""
    if column == "labels":
        number = rows[0].get("examples", rows[0]["label"]["training"])
        return "all" if number is None else f"{number:,}"
    if column.endswith(" of m6"):
        column = column.removesuffix(" of m6")
        return share(rows, {row["seed"]: row for row in of}, column)
    values = [row[column] for row in rows if column in row]
    if not values:
        return ""
    if len({*values}) == 1 and values[0] >= 1 and float(values[0]).is_integer():
        return f"{values[0]:,.0f}"
    return mean_and_error(values, 4 if max(values) <= 1 else 1)


def share(rows: Sequence[Row], of: Mapping[int, Row], column: str) -> str:
    """Of the same seed's rows `of`; of milliseconds where both ran at one commit, for the machine's load changes."""
    pairs = [(row, of[row["seed"]]) for row in rows]
    shares = [a[column] / b[column] for a, b in pairs if column != "milliseconds" or a["commit"] == b["commit"]]
    return plain(float(np.mean(shares)), 2) if shares else ""


def differences(rows: Mapping[str, Sequence[Row]]) -> None:
    """Each ranker less its base, and whether the paper's sign is ours: "same", "other", or "0 held" by the interval."""
    print(f"| | less | {' | '.join(METRICS.values())} | the paper | sign of AUC | seeds |\n|{'---|' * 8}")
    for name, judged in rows.items():
        some = [row for row in judged if "base" in row]
        if not some:
            continue
        cells = " | ".join(difference_over_users(some, f"{metric}_difference") for metric in METRICS)
        published, of_what = PAPER.get(name, ("", ""))
        low, high = interval_over_users(some, "auc_difference")
        same = (low > 0) == published.startswith("+")
        sign = "" if not published else "0 held" if low <= 0 <= high else "same" if same else "other"
        shown = f"{published} {of_what}".strip()
        print(f"| {name} | {some[0]['base']} | {cells} | {shown} | {sign} | {len(some)} |")
    print()


def retrieval() -> None:
    """The rows of Amazon Beauty, and M6 less the others, seed by seed: each holds out items of its own."""
    rows = by_name(read("results_retrieval.jsonl"))
    found = {"recall@100": "HR@100, all items", "cold_recall@100": "HR@100, held-out items", "recall@10": "HR@10"}
    table("Amazon Beauty", rows, {**found, "train_seconds": "seconds"})
    print(f"| m6 less | {' | '.join(found.values())} |\n|{'---|' * (len(found) + 1)}")
    for other in ("popularity", "lem"):
        seeds = [{row["seed"]: row for row in rows[name]} for name in ("m6", other)]
        less = [difference([seeds[0][seed][name] - seeds[1][seed][name] for seed in seeds[0]]) for name in found]
        print(f"| {other} | {' | '.join(less)} |")


def by_name(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of one name, a seed each."""
    return {name: [row for row in rows if row["name"] == name] for name in dict.fromkeys(row["name"] for row in rows)}


def read(file: str) -> list[Row]:
    """Rows of a file."""
    return [json.loads(row) for row in (HERE / file).read_text().splitlines()]


if __name__ == "__main__":
    main()
