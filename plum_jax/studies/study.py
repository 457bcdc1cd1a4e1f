"""A scaling study as one value: what is shared, what is varied, by which rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from plum_jax.evaluation.scalable import Scalable
from plum_jax.studies.grid import Grid
from plum_jax.studies.places import Cell, StudyError
from plum_jax.studies.rules import Ladder, PowerRule, Size
from plum_jax.training.schedules import WarmupStableDecay
from plum_jax.training.width_transfer import WidthTransfer, transferable


@dataclasses.dataclass(frozen=True)
class Study:
    """Sizes x budgets (or horizons) x seeds x learning-rate trials over one system.

    A cell is one training run from random parameters with the system's optimizer and schedule, whose steps, batch,
    peak, warm-up and seed the study sets; then the test users are evaluated.

    Attributes:
      name: of the study, in every row.
      system: what is scaled (`systems.generative.scaling.ScaledDecoder`, `systems.sasrec.scaling.ScaledSasRec`, or one
        of your own); its own size is not used.
      sizes: Transformers, or the rule of a ladder.
      grid: `IsoFlop` or `Horizons`.
      seeds: of the runs of every place of the grid.
      seeds_at: seeds of each group, where they differ; () for `seeds` everywhere.
      learning_rate: peak by a rule; with `base_d_model` usually a constant.
      learning_rate_factors: trials; each place of the grid has all of them.
      base_d_model: learning rates of this width are transferred to others (muP); None: the rule says all.
      batch_size: rows of a batch by a rule; rounded to a multiple of `batch_multiple`.
      batch_multiple: e.g. the chips that a batch is split over.
      warmup_share, decay_share: of the steps; decay of `WarmupStableDecay` alone, others fall to the end.
      shared_trunks: runs of one size, seed and rate train one trunk at a constant rate, off which each branches for its
        decay: the groups of a size cost little more than its largest. Needs `WarmupStableDecay`, and a rate and a batch
        that depend on the parameters alone; all have the warm-up of the shortest.
      held_out: groups (their FLOPs or tokens, as in the grid) that no fit sees; None: the largest; () for none.
      evaluation_users: test users, evenly spread; None: all.
    """

    name: str
    system: Scalable
    sizes: Sequence[Size] | Ladder
    grid: Grid
    learning_rate: PowerRule
    batch_size: PowerRule
    batch_multiple: int = 1
    seeds: Sequence[int] = (0,)
    seeds_at: Sequence[Sequence[int]] = ()
    learning_rate_factors: Sequence[float] = (1.0,)
    base_d_model: int | None = None
    warmup_share: float = 0.1
    decay_share: float = 0.2
    shared_trunks: bool = False
    held_out: Sequence[float] | None = None
    evaluation_users: int | None = None

    def __post_init__(self) -> None:
        names = [size.name for size in self.all_sizes]
        if not names or len(set(names)) != len(names):
            raise StudyError(f"study {self.name}: expected sizes of different names, got {names}")
        groups = len(self.grid.groups)
        if self.seeds_at and len(self.seeds_at) != groups:
            raise StudyError(
                f"study {self.name}: seeds_at has {len(self.seeds_at)} entries, expected one for each of the "
                f"{groups} groups of the grid, or ()"
            )
        unknown = sorted(set(self.held_out or ()) - set(self.grid.groups))
        if unknown:
            raise StudyError(
                f"study {self.name}: held_out names {unknown}, which the grid does not have: its groups are "
                f"{tuple(self.grid.groups)}"
            )
        if not 0 <= self.warmup_share + self.decay_share <= 1 or min(self.warmup_share, self.decay_share) < 0:
            raise StudyError(
                f"study {self.name}: warmup_share {self.warmup_share} and decay_share {self.decay_share} must fit "
                "into a run"
            )

        if self.shared_trunks:
            self._require_trunks()

    def _require_trunks(self) -> None:
        schedule = self.system.training.optimizer.schedule
        if not isinstance(schedule, WarmupStableDecay):
            raise StudyError(
                f"study {self.name}: shared_trunks needs the schedule WarmupStableDecay, got "
                f"{type(schedule).__name__}: add gin/optimizer/wsd.gin"
            )
        for name, rule in (("learning_rate", self.learning_rate), ("batch_size", self.batch_size)):
            if rule.exponent and rule.of != "parameters":
                raise StudyError(
                    f"study {self.name}: shared_trunks needs one {name} for all groups of a size, got a rule over "
                    f"{rule.of}: make it one over parameters, or a constant"
                )
        if not 0 < self.decay_share < 1:
            raise StudyError(f"study {self.name}: shared_trunks needs a decay_share in (0, 1), got {self.decay_share}")

    @property
    def all_sizes(self) -> tuple[Size, ...]:
        """The sizes, those of a ladder made."""
        sizes = self.sizes.sizes() if isinstance(self.sizes, Ladder) else tuple(self.sizes)
        if self.base_d_model is None:
            return sizes
        return tuple(Size(s.name, transferable(s.decoder, self.base_d_model)) for s in sizes)

    @property
    def shared_config(self) -> dict[str, Any]:
        """What decides over the data of all cells."""
        return {**self.system.data_config, "evaluation_users": self.evaluation_users, "ks": tuple(self.system.ks)}

    @property
    def held_out_groups(self) -> frozenset[int]:
        """Places of the groups that are held out."""
        groups = list(self.grid.groups)
        wanted = [max(groups)] if self.held_out is None else self.held_out
        return frozenset(groups.index(group) for group in wanted)

    def of_size(self, size: Size, batch_size: int = 1) -> Scalable:
        """The system at one size, for what hangs on no more than that and the rows of a batch."""
        return self.system.sized(size.decoder, self.system.training, batch_size)

    def trunk_of(self, cell: Cell, step: int) -> Scalable:
        """The system of a cell's trunk up to a step: no decay."""
        return self.system_of(dataclasses.replace(cell, steps=step, decay_steps=0))

    def system_of(self, cell: Cell) -> Scalable:
        """The system as a cell trains it."""
        training = self.system.training
        optimizer = training.optimizer
        changes: dict[str, Any] = {"peak": cell.learning_rate, "warmup_steps": cell.warmup_steps}
        if isinstance(optimizer.schedule, WarmupStableDecay):
            changes["decay_steps"] = cell.decay_steps
        transfer = optimizer.width_transfer if self.base_d_model is None else WidthTransfer(self.base_d_model)
        optimizer = dataclasses.replace(
            optimizer,
            schedule=dataclasses.replace(optimizer.schedule, **changes),
            width_transfer=transfer,
        )
        training = dataclasses.replace(
            training, steps=cell.steps, seed=cell.seed, optimizer=optimizer, evaluation_period=0, select_by=""
        )
        return self.system.sized(cell.decoder, training, cell.batch_size)
