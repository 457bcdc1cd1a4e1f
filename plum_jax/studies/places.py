"""What follows from a study for every place of its grid: a cell, solved, or why there is none."""

from __future__ import annotations

import dataclasses

from plum_jax.model.config import DecoderConfig


class StudyError(ValueError):
    """A study that cannot be run as it is stated."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study, solved.

    Attributes:
      cell_id: name of the run and of its directory, "b02-d064x3-s0" or "b02-d064x3-s0-lr0.5".
      size, decoder: what is trained: a name, and the Transformer of the system.
      group: place of the budget or horizon in the grid.
      budget: intended FLOPs by the grid's convention; cells of an `IsoFlop` group have the same.
      horizon: intended tokens, or tokens a parameter, of `Horizons`; None with budgets.
      held_out: whether it is of a group that forecasts are judged by.
      seed: of initialisation and of the order of the data.
      learning_rate: peak.
      learning_rate_factor: that the rule's value was multiplied by.
      steps, batch_size, length: of training; batch_size in rows.
      flops: of training, exact: projections, causal attention, router, chosen experts, head; padding counts.
      flops_6nd: 6 x activated parameters x positions of all batches.
      warmup_steps, decay_steps: of the schedule; decay_steps of `WarmupStableDecay` alone.
      branches: steps at which runs of this size, seed and rate branch off their common trunk, up to this one's; () for
        a run of its own.
    """

    cell_id: str
    size: str
    decoder: DecoderConfig
    group: int
    budget: float
    horizon: float | None
    held_out: bool
    seed: int
    learning_rate: float
    learning_rate_factor: float
    steps: int
    batch_size: int
    length: int
    flops: float
    flops_6nd: float
    warmup_steps: int
    decay_steps: int = 0
    branches: tuple[int, ...] = ()

    @property
    def trunk_name(self) -> str:
        """Of the trunk that it branches off: all that its runs have in common."""
        trial = "" if self.learning_rate_factor == 1 else f"-lr{self.learning_rate_factor:g}"
        return f"{self.size}-s{self.seed}{trial}"

    @property
    def steps_spent(self) -> int:
        """Steps that are taken for this cell alone: its stretch of the trunk, and its decay."""
        earlier = self.branches[-2] if len(self.branches) > 1 else 0
        return self.steps - earlier

    @property
    def batch_tokens(self) -> int:
        """Positions of a batch."""
        return self.batch_size * self.length


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A place of the grid that is not trained, and why."""

    size: str
    group: int
    reason: str
