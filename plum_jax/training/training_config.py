"""How long and how a run trains."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import optax

from plum_jax import artifact
from plum_jax.training.averaging import averaged
from plum_jax.training.mesh import MeshShape
from plum_jax.training.optimizer import AdamW, Optimizer

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How long and how a run trains.

    Attributes:
      steps: optimizer steps.
      optimizer: AdamW, Muon or Adafactor with its schedule.
      ema_decay: of an exponential moving average of the parameters, which is what is evaluated and returned
        (`averaging`); 0 returns the parameters themselves.
      seed: of initialisation and dropout, folded by name and by step.
      microbatches: a batch is cut into this many pieces whose gradients are summed (gradient accumulation).
      checkpoint_period, evaluation_period, log_period: in steps; evaluation 0 means only at the end.
      select_by: metric of the evaluators whose best parameters are returned; "" returns the last.
      patience: stop when `select_by` has not improved for this many evaluations; 0 never stops early.
      mesh: devices along each axis.
      tensorboard: whether metrics go to TensorBoard too; its import takes seconds, which short runs had better not pay.
      profile_steps: so many steps of this process are traced into `profile/` of the run's directory (`plum --profile`).
    """

    steps: int = 1000
    optimizer: Optimizer = AdamW()
    ema_decay: float = 0.0
    seed: int = 0
    microbatches: int = 1
    checkpoint_period: int = 500
    evaluation_period: int = 0
    log_period: int = 20
    select_by: str = ""
    patience: int = 0
    # A run may go on with another mesh, and is watched or not: both are no part of what it is.
    mesh: MeshShape = dataclasses.field(default=MeshShape(), metadata=artifact.NOT_DESCRIBED)
    tensorboard: bool = dataclasses.field(default=True, metadata=artifact.NOT_DESCRIBED)
    profile_steps: int = dataclasses.field(default=0, metadata=artifact.NOT_DESCRIBED)

    def __post_init__(self) -> None:
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"expected an ema_decay of at least 0 and less than 1, got {self.ema_decay}")

    def for_passes(self, passes: float, steps_a_pass: float) -> TrainingConfig:
        """With as many steps as see the rows so many times: a number that carries over to other corpora."""
        return dataclasses.replace(self, steps=max(1, round(passes * steps_a_pass)))

    def transformation(self) -> optax.GradientTransformation:
        """The optimizer of these steps, with the average of the parameters in its state where one is kept."""
        return averaged(self.optimizer.build(self.steps), self.ema_decay)


def in_steps(system: T, steps_a_pass: float) -> T:
    """What says `training` and `epochs`, a frozen dataclass, with the steps of its passes and no `epochs`; itself
    where it says none.
    """
    config: Any = system
    if config.epochs is None:
        return system
    training = config.training.for_passes(config.epochs, steps_a_pass)
    return dataclasses.replace(config, training=training, epochs=None)
