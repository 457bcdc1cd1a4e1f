"""Rows of the study from what both programs have written: `python experiments/t5x/collect.py runs/t5x`.

One row a run into results.jsonl: the loss of each 20 steps, the median of steps per second, recall on the test users,
commit and machine.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import sys
from typing import Any

from plum_jax import artifact
from plum_jax.training.run_record import run_record

HERE = pathlib.Path(__file__).parent
WANTED = ("recall@5", "recall@10", "ndcg@10", "recall@10_unseen")
# name -> (directory, program, data, dropout)
RUNS = {
    "plum": ("plum", "plum", "own feed", 0.1),
    "t5x": ("seqio", "T5X", "SeqIO", 0.1),
    "plum_same": ("plum_same", "plum", "own feed", 0.0),
    "t5x_same": ("own_feed", "T5X", "own feed", 0.0),
}


def main() -> None:
    root = pathlib.Path(sys.argv[1])
    rows = [row(root, name, *facts) for name, facts in RUNS.items()]
    path = HERE / "results.jsonl"
    before = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    rows += [one for one in before if one["name"] not in RUNS]  # that of steps.py
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))


def row(root: pathlib.Path, name: str, folder: str, program: str, data: str, dropout: float) -> dict[str, Any]:
    """One run."""
    curve, rates = of_plum(root / folder) if program == "plum" else of_t5x(root / folder)
    if program == "plum":
        (metrics,) = [json.loads(line) for line in (root / folder / "results.jsonl").read_text().splitlines()]
    else:
        (path,) = (root / f"{folder}_test" / "inference_eval").glob("*-metrics.jsonl")
        metrics = json.loads(path.read_text().splitlines()[-1])
    rate = statistics.median(rates[1:])  # the first has the compiler's time in T5X
    return run_record(
        name,
        {key: round(float(metrics[key]), 5) for key in WANTED},
        program=program,
        data=data,
        dropout=dropout,
        seed=0,
        steps=curve[-1][0],
        steps_per_second=round(rate, 3),
        wall_seconds=round(curve[-1][0] / rate, 1),
        config=artifact.fingerprint((HERE / "sizes.gin").read_text(), program, data, dropout),
        curve=[[step, round(loss, 5)] for step, loss in curve],
    )


def of_plum(directory: pathlib.Path) -> tuple[list[tuple[int, float]], list[float]]:
    """(step, loss) and steps per second of each row."""
    path = directory / "train" / "retrieval_without_cpt" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [one for one in rows if "loss" in one]
    return [(one["step"], one["loss"]) for one in rows], [one["steps_per_second"] for one in rows]


def of_t5x(directory: pathlib.Path) -> tuple[list[tuple[int, float]], list[float]]:
    """The same from T5X's TensorBoard files."""
    import tensorflow as tf

    # Its "loss" is a mean of steps; this is one of tokens, as plum's rows are.
    found: dict[str, dict[int, float]] = {"cross_entropy": {}, "timing/steps_per_second": {}}
    for path in sorted((directory / "train").glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag in found:
                    found[value.tag][event.step] = float(tf.make_ndarray(value.tensor))
    return sorted(found["cross_entropy"].items()), [
        rate for _, rate in sorted(found["timing/steps_per_second"].items())
    ]


if __name__ == "__main__":
    main()
