"""Table and picture of the study: `python experiments/t5x/table.py` prints what README.md shows."""

from __future__ import annotations

import json
import pathlib
from typing import Any

HERE = pathlib.Path(__file__).parent
COLOURS = {"plum": "#1f77b4", "T5X": "#d62728"}


def main() -> None:
    """Everything from results.jsonl."""
    rows = [json.loads(line) for line in (HERE / "results.jsonl").read_text().splitlines()]
    by_name = {row["name"]: row for row in rows}
    names = ("program", "data", "dropout", "loss, last 20 steps", "steps/s", "recall@10", "ndcg@10")
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    in_turn = by_name.pop("in_turn")["steps_per_second"]
    rows = list(by_name.values())
    for row in rows:
        figures = (
            f"{row['curve'][-1][1]:.4f} | {row['steps_per_second']:.2f} | {row['recall@10']:.4f} | {row['ndcg@10']:.4f}"
        )
        print(f"| {row['program']} | {row['data']} | {row['dropout']} | {figures} |")
    same = zip(by_name["plum_same"]["curve"], by_name["t5x_same"]["curve"], strict=True)
    print(f"\nLargest difference of the two losses on the same batches: {max(abs(a[1] - b[1]) for a, b in same):.5f}.")
    print(f"Steps per second in turn, in one process: plum {in_turn['plum']:.2f}, T5X {in_turn['t5x']:.2f}.")
    draw(rows)


def draw(rows: list[dict[str, Any]]) -> None:
    """Both pairs of curves."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "t5x"
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for axes, dropout, title in (
        (left, 0.1, "own random numbers and data"),
        (right, 0.0, "same parameters and batches"),
    ):
        for row in (row for row in rows if row["dropout"] == dropout):
            steps, losses = zip(*row["curve"], strict=True)
            style = "-" if row["program"] == "plum" else "--"
            axes.plot(steps, losses, style, color=COLOURS[row["program"]], label=f"{row['program']}, {row['data']}")
        axes.set(title=title, xlabel="step")
        axes.legend(frameon=False)
    left.set_ylabel("training loss, mean of 20 steps")
    figure.tight_layout()
    figure.savefig(HERE / "curves.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
