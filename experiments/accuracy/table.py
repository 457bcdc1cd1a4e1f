"""Tables of the study, from results.jsonl beside this file: `python experiments/accuracy/table.py`.

Prints the Markdown that README.md shows: one row a system, means over seeds with their standard errors; what the
lists are made of: how much of the catalogue they show, and whose targets they find; and the training FLOPs until a
system has a given recall, of those whose rows have a curve.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from plum_jax.report.figures import mean_and_error

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]

METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
HEADER = (
    *("R@5", "R@10", "N@5", "N@10", "removed: R@5", "R@10", "N@5", "N@10"),
    *("seeds", "parameters", "training FLOPs", "seconds", "users/s"),
)
# Tenths of the items by popularity, the most popular first: 1, 2 to 5, 6 to 10.
TENTHS = {"first tenth": (1,), "2 to 5": (2, 3, 4, 5), "6 to 10": (6, 7, 8, 9, 10)}
SHOWN = (
    "parameters outside embeddings",
    "effective vocabulary",
    *(f"R@10, {name}" for name in TENTHS),
    "R@10, new items",
)


# Whose best recalls the others are to reach.
REACHED = ("lem", "sasrec")
SEEN = {"recall@10": "kept", "recall@10_unseen": "removed"}


def main() -> None:
    """Prints two tables for each corpus, and a third where rows have curves; that of equal FLOPs last."""
    rows = read("results.jsonl")
    for data in dict.fromkeys(row["data"] for row in rows):
        of_data = [row for row in rows if row["data"] == data]
        names = sorted({row["name"] for row in of_data}, key=lambda name: mean_of(of_data, name))
        print(f"| {data} | {' | '.join(HEADER)} |\n|{'---|' * (len(HEADER) + 1)}")
        for name in names:
            print(line(name, [row for row in of_data if row["name"] == name]))
        print(f"\n| {data}, seen items kept | {' | '.join(SHOWN)} |\n|{'---|' * (len(SHOWN) + 1)}")
        for name in names:
            print(shown_line(name, [row for row in of_data if row["name"] == name]))
        print()
        curves = [row for row in of_data if "recall@10" in row.get("validation_curve", {})]
        if curves:
            print(*reached_table(data, curves), "", sep="\n")
    equal = read("equal_flops.jsonl")
    if equal:
        print(*reached_table(f"{equal[0]['data']}, {equal[0]['train_flops']:.2g} each", equal), "", sep="\n")
    print(*searched_table(sorted((HERE / "search").glob("*.jsonl"))), sep="\n")


def searched_table(files: Sequence[pathlib.Path]) -> list[str]:
    """The best and the worst settings of each system that was searched, by validation users; a file a system."""
    lines = ["| MovieLens-100K, validation R@10 | trials | the best | its settings | the worst | its settings |"]
    lines.append(f"|{'---|' * 6}")
    for file in files:
        rows = sorted(read(f"search/{file.name}"), key=lambda row: -row["best"])
        ends = [f"{row['best']:.4f}".lstrip("0") + f" | {told(row['settings'])}" for row in (rows[0], rows[-1])]
        lines.append(f"| {file.stem} | {len(rows)} of {rows[0]['places']} | {' | '.join(ends)} |")
    return lines


def told(settings: Row) -> str:
    """Settings by the last part of their paths."""
    return ", ".join(f"{path.rpartition('.')[2]} {value:g}" for path, value in settings.items())


def read(file: str) -> list[Row]:
    """Rows of a file; none where there is no such one."""
    path = HERE / file
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def mean_of(rows: Sequence[Row], name: str) -> float:
    """Recall@10 of a system, by which rows are ordered."""
    return float(np.mean([row["recall@10"] for row in rows if row["name"] == name]))


def line(name: str, rows: Sequence[Row]) -> str:
    """A row of the table."""
    figures = [mean_and_error([row[metric + seen] for row in rows]) for seen in ("", "_unseen") for metric in METRICS]
    seconds, speed = (np.mean([row[key] for row in rows]) for key in ("wall_seconds", "users_per_second"))
    flops, parameters = rows[0].get("train_flops"), rows[0].get("parameters", 0)
    costs = (
        str(len(rows)),
        f"{parameters:,}" if parameters else "",
        f"{flops:.2g}" if flops else "",
        f"{seconds:,.0f}",
        f"{speed:,.0f}",
    )
    return f"| {' | '.join((name, *figures, *costs))} |"


def shown_line(name: str, rows: Sequence[Row]) -> str:
    """What a system's lists show, and whose targets they find."""
    parameters = rows[0].get("non_embedding_parameters")
    cells = [
        f"{parameters:,.0f}" if parameters else "",
        f"{np.mean([row['effective_vocabulary@10'] for row in rows]):,.0f}",
        *(mean_and_error([recall_of(row, tenths) for row in rows]) for tenths in TENTHS.values()),
        mean_and_error([row["cold_recall@10"] for row in rows]) if rows[0].get("cold_users") else "",
    ]
    return f"| {' | '.join((name, *cells))} |"


def recall_of(row: Row, tenths: Sequence[int]) -> float:
    """Recall@10 of the users whose target is in some tenths of the items."""
    users = [row[f"decile_{tenth}_users"] for tenth in tenths]
    hits = [row[f"decile_{tenth}_hits@10"] for tenth in tenths]
    return sum(hits) / sum(users)


def reached_table(data: str, rows: Sequence[Row]) -> list[str]:
    """Training FLOPs until each system's validation users have the recall that those of `REACHED` end with."""
    names = sorted({row["name"] for row in rows}, key=lambda name: mean_of(rows, name))
    asked = [(metric, best_of(rows, name, metric)) for name in REACHED if name in names for metric in SEEN]
    titles = [f"{SEEN[metric]}: {recall:.3f}".replace("0.", ".") for metric, recall in asked]
    header = " | ".join((f"{data}, training FLOPs to reach a validation R@10 of", "its best, kept / removed", *titles))
    lines = [f"| {header} |", f"|{'---|' * (len(asked) + 2)}"]
    for name in names:
        some = [row for row in rows if row["name"] == name]
        best = " / ".join(f"{best_of(rows, name, metric):.4f}".lstrip("0") for metric in SEEN)
        lines.append(f"| {' | '.join((name, best, *(flops_to_reach(some, *goal) for goal in asked)))} |")
    return lines


def best_of(rows: Sequence[Row], name: str, metric: str) -> float:
    """The best of a system's evaluations, of means over seeds."""
    return float(mean_curve([row for row in rows if row["name"] == name], metric).max())


def flops_to_reach(rows: Sequence[Row], metric: str, recall: float) -> str:
    """FLOPs at the first evaluation at which the mean over seeds has the recall."""
    reached = np.flatnonzero(mean_curve(rows, metric) >= recall)
    return f"{mean_curve(rows, 'train_flops')[reached[0]]:.2g}" if len(reached) else "not reached"


def mean_curve(rows: Sequence[Row], metric: str) -> np.ndarray:
    """A validation curve, the mean over seeds, which are evaluated after the same steps."""
    return np.mean([row["validation_curve"][metric] for row in rows], axis=0)


if __name__ == "__main__":
    main()
