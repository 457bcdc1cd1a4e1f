"""Tables of the study, from the results beside this file: `python experiments/query_understanding/table.py`.

Prints the Markdown that README.md shows: means over seeds with their standard errors, and differences on the same
queries, requests or users with an interval of 95%, of these, drawn anew, and of the seeds.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from plum_jax.report.figures import difference_over_users, mean_and_error, plain, signed

HERE = pathlib.Path(__file__).parent
FILMS = "MovieLens-1M"
Row = dict[str, Any]
BANDS = ("head", "torso", "tail", "new")
METRICS = {"hit@1": "hit@1", "precision": "precision", "recall": "recall", "hit@1_level_2": "hit@1, level 2"}
REWRITES = {"zero": "zero results", "recall@100": "R@100", "zero_query_recall@100": "R@100 of queries without a result"}
# In the order of the tables.
CLASSIFIERS = (
    *("npmi", "nearest_text", "nearest_words", "nearest_items", "bag", "bag_items", "lm", "lm_behaviour", "lm_items"),
    *("lm_pretrained", "lm_pretrained_sizes", "student", "simulator"),
)
RELATED = {
    "recall@10": "R@10",
    "recall@10_same_category": "same category",
    "recall@10_other_category": "other category",
}


def main() -> None:
    """Prints the classifiers band by band, what they cost and differ by, rewrites, what is served and related items."""
    rows = [json.loads(row) for row in (HERE / "results.jsonl").read_text().splitlines()]
    films = [row for row in rows if row["data"] == FILMS]
    rows = [row for row in rows if row["data"] != FILMS]
    names = list(dict.fromkeys(row["name"] for row in rows))
    by_name = {name: [row for row in rows if row["name"] == name] for name in names}
    print_classifiers(rows, BANDS)
    print_rewrites([by_name[name] for name in names if name.startswith("rewrites: ")])
    print_served(by_name["served"])
    heading("next item", *RELATED.values(), "R@10 less popular", "R@10 less watched together")
    for name in names:
        if name.startswith("items: "):
            some = by_name[name]
            figures = [f"{plain(some[0][metric])} ± {plain(some[0][metric + '_se'])}" for metric in RELATED]
            line(
                some[0]["list"], *figures, *(over(some, f"recall@10_over_{b}") for b in ("popular", "watched_together"))
            )
    print_classifiers(films, ("head", "torso", "tail"), "films, ")


def print_classifiers(rows: Sequence[Row], bands: Sequence[str], of: str = "") -> None:
    """Each band, what classifiers cost, and what they differ by on the same queries."""
    by_name = {name: [row for row in rows if row["name"] == name] for name in CLASSIFIERS}
    by_name = {name: some for name, some in by_name.items() if some}
    (first, *_), *_ = by_name.values()
    for band in bands:
        heading(f"{of}{band} ({first[f'{band}_queries']:,} queries)", *METRICS.values())
        for name, some in by_name.items():
            line(name, *(mean_and_error([row[f"{band}_{metric}"] for row in some]) for metric in METRICS))
    heading(of.removesuffix(", "), "threshold", "steps", "parameters", "seconds", "seeds")
    for name, some in by_name.items():
        line(name, *costs(some))
    for band in bands:
        heading(f"{of}{band}", "less", *METRICS.values())
        for name, some in by_name.items():
            for base in some[0]["bases"]:
                line(name, base, *(over(some, f"{band}_{metric}_over_{base}") for metric in METRICS))


def print_rewrites(of_names: Sequence[Sequence[Row]]) -> None:
    """What a query and three more find, and what the three add."""
    first = of_names[0][0]
    title = f"rewrites ({first['events']:,} requests, {first['zero_events']:,} without a result)"
    heading(title, *REWRITES.values(), "seconds")
    for rows in of_names:
        figures = (mean_and_error([row[metric] for row in rows]) for metric in REWRITES)
        line(rows[0]["rewrites"], *figures, f"{np.mean([row['wall_seconds'] for row in rows]):,.0f}")
    for base in ("original", "nearest"):
        heading(f"less {base}", *REWRITES.values())
        for rows in of_names:
            if f"zero_over_{base}" in rows[0]:
                line(rows[0]["rewrites"], *(over(rows, f"{metric}_over_{base}") for metric in REWRITES))


def print_served(rows: Sequence[Row]) -> None:
    """The two halves of what is served, and the teacher in their place."""
    share = float(np.mean([row["table_share"] for row in rows]))
    heading(f"served ({rows[0]['requests']:,} requests)", "share", "hit@1", "hit@1 of the teacher", "milliseconds")
    for name, of_requests in (("table", share), ("student", 1 - share)):
        values = ([row[f"{name}_{metric}"] for row in rows] for metric in ("hit@1", "teacher_hit@1"))
        line(name, plain(of_requests), *map(mean_and_error, values), milliseconds(rows, name))
    both = ([row[metric] for row in rows] for metric in ("hit@1", "teacher_hit@1"))
    line("both", "1", *map(mean_and_error, both), "")
    line(
        "teacher for all",
        "1",
        "",
        mean_and_error([row["teacher_hit@1"] for row in rows]),
        milliseconds(rows, "teacher"),
    )
    print(f"\nServed less teacher: {difference_over_users(rows, 'hit@1_over_teacher')}.")


def milliseconds(rows: Sequence[Row], name: str) -> str:
    """The mean over seeds of the medians."""
    return f"{np.mean([row[f'{name}_ms'] for row in rows]):.3g}"


def costs(rows: Sequence[Row]) -> list[str]:
    """Threshold, steps, parameters, seconds of training and seeds."""
    seconds = f"{np.mean([row['train_seconds'] for row in rows]):,.0f}"
    threshold = f"{np.mean([row['threshold'] for row in rows]):.2f}"
    return [
        threshold,
        *(f"{rows[0][one]:,}" if one in rows[0] else "" for one in ("steps", "parameters")),
        seconds,
        str(len(rows)),
    ]


def over(rows: Sequence[Row], name: str) -> str:
    """A difference with its interval; nothing where there is none, and no more than its value for one seed's users."""
    if name not in rows[0]:
        return ""
    if len(rows) > 1:
        return difference_over_users(rows, name)
    return f"{signed(rows[0][name])} [{signed(rows[0][name + '_low'])}, {signed(rows[0][name + '_high'])}]"


def heading(*cells: str) -> None:
    """The head of a table, behind an empty line."""
    print(f"\n| {' | '.join(cells)} |\n|{'---|' * len(cells)}")


def line(*cells: str) -> None:
    """A row of a table."""
    print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
