"""Tables of the study, from the results beside this file: `python experiments/trunk/table.py`.

Prints the Markdown that README.md shows: means over seeds with their standard errors, and differences to the base of
the same seeds, with intervals of 95% over seeds (Student's t).
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
T95 = {2: 12.706, 3: 4.303}  # Student's, of two and three seeds
NEXT = ("base", "last", "concat", "tokens4", "tokens4_third", "latest", "sliding", "auxiliary", "no_request")
TARGETS = {
    "recall@10_unseen_0_behind": "next",
    "recall@10_unseen_5_behind": "5 behind it",
    "recall@10_unseen_1_days": "a day later",
}
COLD = {"recall@10": "R@10", "cold_recall@10": "new films: R@10", "cold_users": "users"}
RANK = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss"}
# arXiv 2409.14517: recall less that of fixed latest windows; its mixed windows reach 500 events back.
PAPER = {"sliding": "+7.0%", "base": "+13.9%"}
VERSIONS = {f"kept_{how}": how.replace("_", " ") for how in ("unaligned", "orthogonal", "low_rank", "retrained")}


def main() -> None:
    """Prints a table for each part of the study that has rows."""
    rows = [json.loads(line) for line in (HERE / "results.jsonl").read_text().splitlines()]
    by_name = {name: [row for row in rows if row["name"] == name] for name in dict.fromkeys(r["name"] for r in rows)}
    for data in dict.fromkeys(row["data"] for row in rows if row["name"].endswith("_horizons")):
        of_data = {name: [row for row in some if row.get("data") == data] for name, some in by_name.items()}
        horizons = {name: of_data[f"{name}_horizons"] for name in NEXT if of_data.get(f"{name}_horizons")}
        header = [f"{said} | less base" for said in TARGETS.values()]
        print_head(f"{data}: R@10, seen removed", *header, "seeds", "seconds")
        for name, some in horizons.items():
            cells = (f"{figure(some, metric)} | {less(some, horizons['base'], metric)}" for metric in TARGETS)
            print(f"| {name} | {' | '.join(cells)} | {len(some)} | {seconds(some)} |")
        if "latest" in horizons:
            print()
            print_head(f"{data}: windows", "R@10 of the next less that of latest windows", "the paper's")
            for name in (name for name in PAPER if name in horizons):
                found = less(horizons[name], horizons["latest"], "recall@10_unseen_0_behind")
                print(f"| {'mixed' if name == 'base' else name} | {found} | {PAPER[name]} |")
        print()
    section(by_name, ("cold_sum", "cold_age"), COLD, "films that arrive after training")
    ranked = ("from_scratch", "frozen_mixture", "frozen_last", "frozen_concat", "learning")
    section(by_name, ranked, RANK, "a label on top of the trunk")
    liked = ("base_liked", "fine_tuned_liked", "from_scratch_liked")
    section(by_name, liked, {"recall@10": "R@10", "recall@10_unseen": "seen removed"}, "what is liked next")
    section(
        by_name,
        tuple(f"versions_{name}" for name in ("base", "last", "concat")),
        VERSIONS,
        "first ten that an old consumer keeps",
    )


def section(by_name: dict[str, list[Row]], names: Sequence[str], metrics: dict[str, str], said: str) -> None:
    """A table of some rows, where there are any."""
    there = [name for name in names if name in by_name]
    if not there:
        return
    print_head(said, *metrics.values(), "seeds", "seconds")
    for name in there:
        some = by_name[name]
        print(f"| {name} | {' | '.join(figure(some, m) for m in metrics)} | {len(some)} | {seconds(some)} |")
    print()


def print_head(*titles: str) -> None:
    """The head of a table; a title may be of two columns."""
    text = " | ".join(titles)
    print(f"| {text} |\n|{'---|' * (text.count('|') + 1)}")


def figure(rows: Sequence[Row], metric: str) -> str:
    """The mean, with its standard error over seeds where there are several; a count as it is."""
    values = [row[metric] for row in rows if row.get(metric) is not None]
    if not values:
        return ""
    if np.mean(values) > 1:
        return f"{np.mean(values):,.0f}"
    text = f"{np.mean(values):.4f}"
    text = text[1:] if text.startswith("0") else text
    if len(values) == 1:
        return text
    return f"{text} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.4f}".replace("± 0", "± ")


def less(rows: Sequence[Row], base: Sequence[Row], metric: str) -> str:
    """The mean difference to the base of the same seeds with its interval, and what it is of the base in percent."""
    of_base = {row["seed"]: row[metric] for row in base}
    found = np.array([row[metric] - of_base[row["seed"]] for row in rows if row["seed"] in of_base])
    if rows is base or not len(found):
        return ""
    share = f"{100 * found.mean() / np.mean(list(of_base.values())):+.1f}%"
    if len(found) == 1:
        return f"{signed(found.mean())}, {share}".replace("-", "−")
    half = T95[len(found)] * np.std(found, ddof=1) / np.sqrt(len(found))
    low, high = signed(found.mean() - half), signed(found.mean() + half)
    return f"{signed(found.mean())} [{low}, {high}], {share}".replace("-", "−")


def signed(value: float) -> str:
    """As the pages write it: a sign, no zero before the point."""
    return f"{value:+.4f}".replace("0.", ".", 1).replace("-", "−")


def seconds(rows: Sequence[Row]) -> str:
    """Of training, the mean; where it is known."""
    values = [row["train_seconds"] for row in rows if "train_seconds" in row]
    return f"{np.mean(values):,.0f}" if values else ""


if __name__ == "__main__":
    main()
