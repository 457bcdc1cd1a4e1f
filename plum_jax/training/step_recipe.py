"""A train step short of devices: what times it on this machine, and what compiles it for chips that are elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jax.sharding import Mesh

from plum_jax.model.config import DecoderConfig
from plum_jax.training.step import Initialiser, Objective
from plum_jax.training.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True, eq=False)
class StepRecipe:
    """All that a system's train step consists of.

    Attributes:
      training: optimizer, microbatches, mesh and seed.
      init_params: random parameters from a key, with their logical axes.
      objective: the loss on a mesh.
      batch: a batch of random values, as the feed would give it; its shapes are those of the step.
      batch_size, length: rows, and positions of a row.
      flops: of one step that the model needs, scores of a causal mask.
      transformer: whose attention kernels are in the program.
    """

    training: TrainingConfig
    init_params: Initialiser
    objective: Callable[[Mesh], Objective]
    batch: Callable[[], dict[str, np.ndarray]]
    batch_size: int
    length: int
    flops: float
    transformer: DecoderConfig
