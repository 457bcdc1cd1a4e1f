"""Tables of the study: `python experiments/mixture_rates/table.py` prints the Markdown that README.md shows."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).parent
METRICS = ("recall@5", "recall@10", "ndcg@10", "recall@10_unseen")


def main() -> None:
    """The rounds of the search, then means over seeds."""
    rounds = json.loads((HERE / "rounds.json").read_text())
    names = list(rounds[0]["rates"])
    print(f"| round | {' | '.join(names)} | greatest excess | gap |\n|{'---|' * (len(names) + 3)}")
    for row in rounds:
        cells = [f"{row['rates'][name]:.3f} ({row['excess'][name]:+.2f})" for name in names]
        print(f"| {row['round']} | {' | '.join(cells)} | {max(row['excess'].values()):.2f} | {row['gap']:.3f} |")
    rows = [json.loads(line) for line in (HERE / "results.jsonl").read_text().splitlines()]
    print(f"\n| rates | {' | '.join(METRICS)} | seeds |\n|{'---|' * (len(METRICS) + 2)}")
    for name in ("usual", "chosen"):
        print(line(name, [row for row in rows if row["name"] == name]))


def line(name: str, rows: list[dict[str, Any]]) -> str:
    """Means over seeds with their standard errors."""
    figures = []
    for metric in METRICS:
        values = np.array([row[metric] for row in rows])
        error = values.std(ddof=1) / len(values) ** 0.5
        figures.append(f"{values.mean():.4f} ± {error:.4f}".replace("0.", "."))
    return f"| {name} | {' | '.join(figures)} | {len(rows)} |"


if __name__ == "__main__":
    main()
