"""Tables of the study, from the results beside this file: `python experiments/payments/table.py`.

Prints the Markdown that README.md shows: means over seeds with their standard errors, by share of labels; recall by
kind of fraud; and each detector less its base, with an interval of 95% of the customers, drawn anew, and of the seeds.
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

DIGITS = 3
FIGURES = {
    "average_precision": "average precision",
    "recall@fpr0.001": "recall at .001",
    "recall@fpr0.01": "recall at .01",
}
SAID = {"card_payments-2000x200": "simulated card testing", "handbook": "the Handbook's transactions"}
KINDS = {"card_payments-2000x200": "attacks of {} payments", "handbook": "scenario {}"}
SHARES = (1.0, 0.1, 0.01)


def main() -> None:
    """Prints three tables for each set of payments."""
    rows = [json.loads(line) for line in (HERE / "results.jsonl").read_text().splitlines()]
    for data in (data for data in SAID if any(row["data"] == data for row in rows)):
        for share in SHARES:
            by_name = grouped([row for row in rows if row["data"] == data and row["label_share"] == share])
            if by_name:
                figures(SAID[data], share, by_name)
        whole = grouped([row for row in rows if row["data"] == data and row["label_share"] == 1])
        by_kind(data, whole)
        differences(data, [row for row in rows if row["data"] == data])


def differences(data: str, rows: Sequence[Row]) -> None:
    """One table of differences, where there are any."""
    if not any("base" in row for row in rows):
        return
    print(f"| {SAID[data]} | less | {' | '.join(FIGURES.values())} |\n|{'---|' * 5}")
    for share in SHARES:
        for name, some in grouped([row for row in rows if row["label_share"] == share]).items():
            if "base" in some[0]:
                cells = " | ".join(difference_over_users(some, f"{figure}_difference", DIGITS) for figure in FIGURES)
                print(f"| {name}{told(share)} | {some[0]['base'].removesuffix(f'_{share:g}')} | {cells} |")
    print()


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """By name without the share, in the order of the rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["name"].removesuffix(f"_{row['label_share']:g}"), []).append(row)
    return found


def figures(said: str, share: float, by_name: dict[str, list[Row]]) -> None:
    """One table of means."""
    frauds = np.mean([row["labelled_frauds"] for some in by_name.values() for row in some])
    titles = (*FIGURES.values(), "cards of 100 a day", "seeds", "parameters", "seconds")
    print(f"| {said}, {share:.0%} of the labels ({frauds:,.0f} frauds) | {' | '.join(titles)} |\n|{'---|' * 8}")
    for name, some in by_name.items():
        cells = [mean_and_error([row[figure] for row in some], DIGITS) for figure in FIGURES]
        cells += [mean_and_error([row["card_precision@100"] for row in some], DIGITS), str(len(some))]
        parameters, seconds = some[0].get("parameters"), [row.get("train_seconds", 0.0) for row in some]
        cells += [f"{parameters:,}" if parameters else "", f"{np.mean(seconds):,.0f}"]
        print(f"| {name} | {' | '.join(cells)} |")
    print()


def by_kind(data: str, by_name: dict[str, list[Row]]) -> None:
    """Recall at .001 of each kind of fraud, with all labels."""
    keys = sorted({key for some in by_name.values() for row in some for key in row if key.startswith("frauds_kind")})
    kinds = sorted(int(key.removeprefix("frauds_kind")) for key in keys)
    titles = " | ".join(KINDS[data].format(kind) for kind in kinds)
    print(f"| {SAID[data]}, recall at .001 | {titles} |\n|{'---|' * (1 + len(kinds))}")
    for name, some in by_name.items():
        cells = (mean_and_error([row[f"recall@fpr0.001_kind{kind}"] for row in some], DIGITS) for kind in kinds)
        print(f"| {name} | {' | '.join(cells)} |")
    print()


def told(share: float) -> str:
    """Of the labels, where they are not all."""
    return "" if share == 1 else f", {share:.0%} of the labels"


if __name__ == "__main__":
    main()
