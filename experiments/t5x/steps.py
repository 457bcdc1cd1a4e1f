"""Steps per second of both programs, in turn in one process: `python experiments/t5x/steps.py runs/t5x/plum`.

Other work on the machine slows both alike. Blocks of ten steps on the same batch with dropout; medians of the blocks.
Appends a row to results.jsonl.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from plum_jax.feeds.batches import TokenBatches
from plum_jax.interop.t5x.microbatches import Trainer
from plum_jax.interop.t5x.optimizer_def import OptimizerDef, logged_rate
from plum_jax.interop.t5x.partitioner import Partitioner
from plum_jax.interop.t5x.run_files import RunFiles
from plum_jax.interop.t5x.sid_model import SidModel
from plum_jax.model.config import DecoderConfig
from plum_jax.objectives.next_token import NextToken
from plum_jax.training.initial import initial_params
from plum_jax.training.mesh import MeshShape
from plum_jax.training.optimizer import AdamW
from plum_jax.training.step import initial_state, make_train_step

from t5x import utils  # isort: skip

HERE = pathlib.Path(__file__).parent
BLOCKS, STEPS = 12, 10
# gin/model/cpu_tiny.gin
CONFIG = DecoderConfig(
    num_layers=3, d_model=64, num_heads=4, num_kv_heads=2, head_dim=16, mlp_dim=176, dropout_rate=0.1
)


def main() -> None:
    run = RunFiles(sys.argv[1])
    feed = TokenBatches(run.records("retrieval"), batch_size=32, length=160, start_token=run.vocabulary.start_id)
    batch = dict(next(feed.make_iterator()))
    programs = {"plum": plum_steps(run, batch), "t5x": t5x_steps(run, batch)}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for block in range(BLOCKS + 1):
        for name, take in programs.items():
            start = time.perf_counter()
            take()
            if block:  # the first compiles
                seconds[name].append(time.perf_counter() - start)
    rates = {name: round(STEPS / statistics.median(some), 2) for name, some in seconds.items()}
    row = {"name": "in_turn", "blocks": BLOCKS, "steps_a_block": STEPS, "steps_per_second": rates}
    path = HERE / "results.jsonl"
    kept = [line for line in path.read_text().splitlines() if json.loads(line)["name"] != "in_turn"]
    path.write_text("\n".join([*kept, json.dumps(row)]) + "\n")


def plum_steps(run: RunFiles, batch: dict[str, Any]) -> Callable[[], None]:
    """Ten steps of `training/step.py`."""
    from plum_jax.model.decoder import Decoder

    decoder, mesh = Decoder(CONFIG, run.vocabulary.vocab_size), MeshShape().build()
    optimizer = AdamW().build(1000)
    state = initial_state(initial_params(decoder), optimizer, jax.random.key(0), mesh)
    step = make_train_step(NextToken().on(decoder, mesh), optimizer, 1, jax.random.key(0), mesh, state)
    kept = [state]

    def take() -> None:
        for _ in range(STEPS):
            kept[0], sums = step(kept[0], batch)
        jax.block_until_ready(sums)

    return take


def t5x_steps(run: RunFiles, batch: dict[str, Any]) -> Callable[[], None]:
    """Ten steps of T5X's trainer."""
    optimizer, partitioner = OptimizerDef(AdamW(), 1000), Partitioner()
    model = SidModel(run, optimizer, CONFIG)
    shapes = {name: values.shape for name, values in batch.items()}
    initializer = utils.TrainStateInitializer(optimizer, model.get_initial_variables, shapes, partitioner)
    trainer = Trainer(
        model=model,
        train_state=initializer.from_scratch(jax.random.PRNGKey(0)),
        partitioner=partitioner,
        eval_names=[],
        summary_dir=None,
        train_state_axes=initializer.train_state_axes,
        rng=jax.random.PRNGKey(0),
        learning_rate_fn=logged_rate(AdamW().schedule, 1000),
        num_microbatches=None,
    )
    trainer.compile_train(batch)

    def take() -> None:
        trainer.train(iter([batch] * STEPS), STEPS).result()
        jax.block_until_ready(trainer.train_state.params)

    return take


if __name__ == "__main__":
    main()
