"""A run of a model of a few numbers with all that a real one has: dropout, Adam, a stateful feed, rows and checkpoints.

`python small_run.py DIRECTORY SECONDS_PER_BATCH RENAME` runs it in a process of its own, to be killed; at its RENAME-th
renaming of a path (0: never) it kills itself.
"""

import itertools
import os
import pathlib
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from plum_jax.training import trainer, training_config
from plum_jax.training.mesh import MeshShape
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import Constant

ROWS, WIDTH = 8, 16
TRAINING = training_config.TrainingConfig(
    steps=60, checkpoint_period=4, log_period=3, optimizer=AdamW(Constant(1e-2)), mesh=MeshShape()
)


def init_params(key):
    return {"weights": jax.random.normal(key, (WIDTH, WIDTH)), "bias": jnp.zeros(WIDTH)}


def objective(params, batch, rng):
    kept = jax.random.bernoulli(rng, 0.9, batch["x"].shape)  # the random numbers of a step are part of the state
    error = (batch["x"] * kept) @ params["weights"] + params["bias"] - batch["y"]
    return jnp.sum(error**2), jnp.float32(error.size), {"size": (jnp.sum(jnp.abs(error)), jnp.float32(error.size))}


class Feed:
    """Batches of a walk: each depends on all before it, so that a state that is off by one is noticed."""

    def __init__(self, seconds=0.0, bad_step=None):
        self.seconds, self.bad_step = seconds, bad_step

    def make_iterator(self):
        return Walk(self)


class Walk:
    def __init__(self, feed):
        self.feed, self.place, self.number = feed, 0, 0

    def __next__(self):
        time.sleep(self.feed.seconds)
        rng = np.random.default_rng([self.place, self.number])
        self.place = int(rng.integers(1 << 30))
        self.number += 1
        x, y = rng.standard_normal((2, ROWS, WIDTH), np.float32)
        if self.number == self.feed.bad_step:
            x[3, 5] = np.nan
        return {"x": x, "y": y}

    def get_state(self):
        return {"place": self.place, "number": self.number}

    def set_state(self, state):
        self.place, self.number = state["place"], state["number"]


def train(directory, config=TRAINING, feed=None, **overrides):
    arguments = {"init_params": init_params, "objective": objective, "fingerprints": {"data": "a"}, **overrides}
    return trainer.train(config, directory=directory, feed=feed or Feed(), **arguments)


def killing(rename, count, number):
    def counted(path, target):
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    return counted


def kill_at_rename(number):
    """From here on the process is killed when it is about to rename a path for the `number`-th time."""
    place, count = type(epath.Path("/")), itertools.count(1)
    for name in ("rename", "replace"):
        setattr(place, name, killing(getattr(place, name), count, number))


if __name__ == "__main__":
    directory, seconds, rename = sys.argv[1:]
    kill_at_rename(int(rename))
    train(pathlib.Path(directory), feed=Feed(float(seconds)))
