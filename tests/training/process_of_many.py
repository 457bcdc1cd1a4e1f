"""One of several processes of a run over token records; the test starts them, or calls `train` in its own process.

`python process_of_many.py DIRECTORY RECORDS PORT PROCESS COUNT SECONDS_PER_BATCH`
"""

import dataclasses
import pathlib
import sys
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epath

from plum_jax.feeds.batches import TokenBatches
from plum_jax.training import trainer, training_config
from plum_jax.training.mesh import MeshShape
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import Constant

STEPS, VOCAB, WIDTH = 40, 32, 8
TRAINING = training_config.TrainingConfig(
    steps=STEPS,
    checkpoint_period=5,
    log_period=2,
    evaluation_period=20,
    select_by="test/size",
    optimizer=AdamW(Constant(1e-2)),
    mesh=MeshShape(data=2, fsdp=2),
)


def init_params(key):
    table = nn.with_logical_partitioning(nn.initializers.normal(0.3), ("vocab", "embed"))
    return {"embedding": table(key, (VOCAB, WIDTH))}


def objective(params, batch, rng):
    table, weights = params["embedding"], batch["decoder_loss_weights"]
    logits = table[batch["decoder_input_tokens"]] @ table.T
    picked = jax.nn.log_softmax(logits) * jax.nn.one_hot(batch["decoder_target_tokens"], VOCAB)
    tokens = (weights * batch["decoder_target_tokens"]).sum()  # exact: tells which tokens a batch had
    return -(picked.sum(-1) * weights).sum(), weights.sum(), {"tokens": (tokens, jnp.float32(1))}


@dataclasses.dataclass(frozen=True)
class SlowTokens(TokenBatches):
    seconds: float = 0.0

    def make_iterator(self, shards=None):
        return Delayed(super().make_iterator(shards), self.seconds)


class Delayed:
    def __init__(self, iterator, seconds):
        self.iterator, self.seconds = iterator, seconds
        self.get_state, self.set_state = iterator.get_state, iterator.set_state

    def __next__(self):
        time.sleep(self.seconds)
        return next(self.iterator)


def train(directory, records, mesh=TRAINING.mesh, seconds=0.0):
    return trainer.train(
        dataclasses.replace(TRAINING, mesh=mesh),
        directory=directory,
        init_params=init_params,
        objective=objective,
        feed=SlowTokens(records, batch_size=8, length=12, packing_window=7, feed_shards=4, seconds=seconds),
        fingerprints={"records": "same"},
        evaluators={"test": lambda params: {"size": float(abs(params["embedding"]).sum())}},
    )


def make_directories_late(step):
    """The first process makes the directories of this checkpoint; what another one writes before is removed."""
    path_class = type(epath.Path("."))
    mkdir = path_class.mkdir

    def late(path, *args, **options):
        if path.parent.name.startswith(f"{step}."):
            time.sleep(1)
        return mkdir(path, *args, **options)

    path_class.mkdir = late


if __name__ == "__main__":
    directory, records, port, process, count, seconds = sys.argv[1:]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=int(count), process_id=int(process))
    if process == "0":
        make_directories_late(25)  # the first checkpoint after a best one, which the first process alone has written
    params = train(pathlib.Path(directory), records, seconds=float(seconds))
    assert params["embedding"].shape == (VOCAB, WIDTH), "whole on every process"
