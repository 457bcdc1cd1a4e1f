"""What the accuracy study's table says a recall has cost, on rows whose answer is known."""

import pathlib
import runpy

TABLE = pathlib.Path(__file__).resolve().parents[2] / "experiments/accuracy/table.py"


def row(name: str, seed: int, recalls: list[float]) -> dict:
    curve = {"step": [10, 20, 30], "train_flops": [1e9 * (seed + 1), 2e9 * (seed + 1), 4e9 * (seed + 1)]}
    removed = [recall + 0.01 for recall in recalls]
    curves = curve | {"recall@10": recalls, "recall@10_unseen": removed}
    return {"name": name, "seed": seed, "recall@10": recalls[-1], "validation_curve": curves}


def test_flops_to_reach_are_those_of_the_first_evaluation_that_has_it():
    table = runpy.run_path(str(TABLE))
    rows = [row("lem", 0, [0.02, 0.05, 0.04]), row("lem", 1, [0.01, 0.02, 0.05])]
    rows += [row("sasrec", 0, [0.01, 0.03, 0.04]), row("item_history", 0, [0.05, 0.07, 0.08])]
    assert table["reached_table"]("Made", rows)[2:] == [
        "| sasrec | .0400 / .0500 | not reached | not reached | 4e+09 | 4e+09 |",
        "| lem | .0450 / .0550 | 6e+09 | 6e+09 | 6e+09 | 6e+09 |",
        "| item_history | .0800 / .0900 | 1e+09 | 1e+09 | 1e+09 | 1e+09 |",
    ]
