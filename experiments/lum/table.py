"""Tables of the study, from the results beside this file: `python experiments/lum/table.py`.

Prints the Markdown that README.md shows: means over seeds with their standard errors; each ranker with LUM's answers
less itself without, with an interval of 95%, of the users, drawn anew, and of the seeds; and the paper's figures.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from plum_jax.report.figures import difference_over_users, mean_and_error, signed

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]

# The paper's Tables 2 and 4, MovieLens-1M.
PAPER = {"sasrec": 0.7295, "hstu": 0.7533, "din": 0.7455, "dien": 0.7527, "sim": 0.7579, "twin": 0.7539}
PAPER |= {"din_lum": 0.7472, "dien_lum": 0.7604, "sim_lum": 0.7615, "twin_lum": 0.7675}
METRICS = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss"}
RECALLS = {"recall@10": "R@10", "recall@50": "R@50", "recall@10_unseen": "removed: R@10", "recall@50_unseen": "R@50"}
SPLITS = {
    "results.jsonl": "split by each user's time",
    "results_continued.jsonl": "later half of the training events",
    "results_global_time.jsonl": "split by global time",
}


def main() -> None:
    """Prints two tables for each split, one of retrieval, and one of scaling."""
    for file, said in SPLITS.items():
        if not (HERE / file).exists():
            continue
        rows = [row for row in read(file) if "auc" in row]
        names = list(dict.fromkeys(row["name"] for row in rows))
        by_name = {name: [row for row in rows if row["name"] == name] for name in names}
        titles = " | ".join((said, *METRICS.values(), "paper's AUC", "seeds", "parameters", "seconds", "events/s"))
        print(f"| {titles} |\n|{'---|' * 9}")
        for name, some in by_name.items():
            print(line(name, some))
        print(f"\n| {said} | less | AUC | GAUC | log loss |\n|{'---|' * 5}")
        for name, some in by_name.items():
            if "base" in some[0]:
                cells = " | ".join(difference_over_users(some, f"{metric}_difference") for metric in METRICS)
                print(f"| {name} | {some[0]['base']} | {cells} |")
        print()
    if (HERE / "results_retrieval.jsonl").exists():
        rows = read("results_retrieval.jsonl")
        print(f"| retrieval | {' | '.join(RECALLS.values())} | seeds | parameters | seconds |\n|{'---|' * 8}")
        for name in dict.fromkeys(row["name"] for row in rows):
            some = [row for row in rows if row["name"] == name]
            cells = " | ".join(mean_and_error([row[metric] for row in some]) for metric in RECALLS)
            print(f"| {name} | {cells} | {costs(some)} |")
    lengths = sorted(int(path.name) for path in (HERE / "scaling").glob("*"))
    if lengths:
        print()
        scaling(lengths)


def scaling(lengths: Sequence[int]) -> None:
    """The best size of each budget for each length of the history, the line R = a ln P + b through them, and what was
    forecast of the largest budget before its runs, with its 90% interval.
    """
    rows = {length: read(f"scaling/{length}/results.jsonl") for length in lengths}
    budgets = sorted({row["budget"] for row in rows[lengths[0]]})
    titles = " | ".join(f"{budget:.1e} FLOPs" for budget in budgets)
    print(f"| R@10, history of | {titles} | a | forecast at {budgets[-1]:.1e} | loss there | forecast |\n|{'---|' * 9}")
    for length in lengths:
        best = [
            max(
                (row for row in rows[length] if row["budget"] == budget), key=lambda row: row["recall@10"], default=None
            )
            for budget in budgets
        ]
        cells = " | ".join(f"{row['recall@10']:.4f} ({row['parameters']:,})"[1:] if row else "" for row in best)
        there = [row for row in best if row]
        a = np.polyfit(np.log([row["parameters"] for row in there]), [row["recall@10"] for row in there], 1)[0]
        told = read_json(f"scaling/{length}/forecast.json")["best"][0]
        recall, loss = (
            f"{one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}]" for one in (told["recall"], told["loss"])
        )
        losses = [row["loss"] for row in rows[length] if row["budget"] == budgets[-1]]
        seen = f"{min(losses):.4f}" if losses else ""
        print(f"| {length} | {cells} | {signed(a)} | {recall.replace('0.', '.')} | {seen} | {loss} |")


def read_json(file: str) -> Any:
    """A file of one value."""
    return json.loads((HERE / file).read_text())


def read(file: str) -> list[Row]:
    """Rows of a file."""
    return [json.loads(row) for row in (HERE / file).read_text().splitlines()]


def line(name: str, rows: Sequence[Row]) -> str:
    """A row of the first table."""
    figures = " | ".join(mean_and_error([row[metric] for row in rows]) for metric in METRICS)
    paper = f"{PAPER[name]:.4f}"[1:] if name in PAPER else ""
    speed = np.mean([row["events_per_second"] for row in rows])
    return f"| {name} | {figures} | {paper} | {costs(rows)} | {speed:,.0f} |"


def costs(rows: Sequence[Row]) -> str:
    """Seeds, parameters, and seconds of training."""
    parameters = rows[0].get("parameters")
    seconds = np.mean([row.get("train_seconds", 0.0) for row in rows])
    return f"{len(rows)} | {f'{parameters:,}' if parameters else ''} | {seconds:,.0f}"


if __name__ == "__main__":
    main()
