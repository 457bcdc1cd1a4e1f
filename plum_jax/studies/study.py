"""A scaling study as one value: what is shared, what is varied, by which rules; and the cells that follow from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import parameter_counts, train_step_flops
from plum_jax.pipeline import Phase, Pipeline
from plum_jax.studies.grid import DataFacts, Grid, Need, flops_per_position
from plum_jax.studies.rules import Ladder, PowerRule, Size
from plum_jax.training.schedules import WarmupStableDecay
from plum_jax.training.width_transfer import WidthTransfer, transferable

_OF_DATA = (
    "source",
    "splitter",
    "feature_builders",
    "quantizer",
    "collision_policy",
    "balance",
    "vocabulary",
    "sid_text",  # whose texts the pieces are trained on
    "retrieval_task",
)
LARGEST_MISS = 0.01  # of a budget, that steps of whole batches may leave or exceed


class StudyError(ValueError):
    """A study that cannot be run as it is stated."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study, solved.

    Attributes:
      cell_id: name of the run and of its directory, "b02-d064x3-s0" or "b02-d064x3-s0-lr0.5".
      size, decoder: what is trained.
      group: place of the budget or horizon in the grid.
      budget: intended FLOPs by the grid's convention; cells of an `IsoFlop` group have the same.
      horizon: intended tokens, or tokens a parameter, of `Horizons`; None with budgets.
      held_out: whether it is of a group that forecasts are judged by.
      seed: of initialisation and of the order of the data.
      learning_rate: peak.
      learning_rate_factor: that the rule's value was multiplied by.
      steps, batch_size, length: of training; batch_size in rows.
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

    def flops(self, vocab_size: int) -> float:
        """Training FLOPs, exact: projections, causal attention, router, chosen experts, head; padding counts."""
        return self.steps * train_step_flops(self.decoder, vocab_size, self.batch_size, self.length, causal=True)

    def flops_6nd(self, vocab_size: int) -> float:
        """6 x activated parameters x positions of all batches."""
        return 6.0 * parameter_counts(self.decoder, vocab_size)["activated"] * self.steps * self.batch_tokens


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A place of the grid that is not trained, and why."""

    size: str
    group: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Study:
    """Sizes x budgets (or horizons) x seeds x learning-rate trials over one pipeline.

    A cell is one training phase from random parameters: `pipeline.retrieval` with its optimizer and schedule, whose
    steps, batch, peak, warm-up and seed the study sets; then the test users are evaluated. The decoder of the pipeline
    and its phase of continued pre-training are not used.

    Attributes:
      name: of the study, in every row.
      pipeline: what all cells share, up to the token records and the prompts.
      sizes: decoders, or the rule of a ladder.
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
    pipeline: Pipeline
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
        if self.pipeline.initialisation.pretrained is not None:
            raise StudyError(f"study {self.name}: cells begin with random parameters: leave PRETRAINED unset")
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
        schedule = self.pipeline.retrieval.training.optimizer.schedule
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
        return {
            **{name: getattr(self.pipeline, name) for name in _OF_DATA},
            "length": self.pipeline.retrieval.length,
            "evaluation_users": self.evaluation_users,
            "ks": self.pipeline.evaluation.ks,
        }

    @property
    def held_out_groups(self) -> frozenset[int]:
        """Places of the groups that are held out."""
        groups = list(self.grid.groups)
        wanted = [max(groups)] if self.held_out is None else self.held_out
        return frozenset(groups.index(group) for group in wanted)

    def cells(self, data: DataFacts) -> tuple[Cell, ...]:
        """All runs, those of the smallest groups first.

        Raises:
          StudyError: no cell, or one whose steps cannot come within 1% of its budget.
        """
        return tuple(cell for cell in self.places(data) if isinstance(cell, Cell))

    def places(self, data: DataFacts) -> tuple[Cell | LeftOut, ...]:
        """All runs, and the places of the grid that are left out by its bounds."""
        found: list[Cell | LeftOut] = []
        by_size = sorted(range(len(self.grid.groups)), key=lambda group: self.grid.groups[group])
        for group in by_size:
            found += self._of_group(group, data)
        if not any(isinstance(place, Cell) for place in found):
            reasons = "; ".join(sorted({place.reason for place in found if isinstance(place, LeftOut)}))
            raise StudyError(f"study {self.name}: no cell is left by the grid's bounds ({reasons}): loosen them")
        return tuple(self._on_trunks(found)) if self.shared_trunks else tuple(found)

    def trunk_phase(self, cell: Cell, step: int) -> Phase:
        """The training phase of a cell's trunk up to a step: no decay."""
        return self.phase(dataclasses.replace(cell, steps=step, decay_steps=0))

    def phase(self, cell: Cell) -> Phase:
        """The training phase of a cell."""
        phase = self.pipeline.retrieval
        optimizer = phase.training.optimizer
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
            phase.training, steps=cell.steps, seed=cell.seed, optimizer=optimizer, evaluation_period=0, select_by=""
        )
        return dataclasses.replace(phase, training=training, batch_size=cell.batch_size)

    def _of_group(self, group: int, data: DataFacts) -> Iterator[Cell | LeftOut]:
        value, sizes = self.grid.groups[group], self.all_sizes
        parameters = [parameter_counts(size.decoder, data.vocab_size)["total"] for size in sizes]
        for place in self.grid.chosen(parameters, value):
            size = sizes[place]
            need = self.grid.need(size.decoder, value, data)
            facts = {"parameters": parameters[place], "tokens": need.tokens, "flops": need.flops}
            batch_size = self.batch_multiple * max(1, round(self.batch_size(**facts) / self.batch_multiple))
            steps = round(need.positions / (batch_size * data.length))
            reason = self._outside(steps, need.tokens, data)
            if reason:
                yield LeftOut(size.name, group, reason)
                continue
            self._require_near(size, value, need, steps, batch_size, data)
            yield from self._trials(size, group, need, steps, batch_size, self.learning_rate(**facts), data.length)

    def _trials(
        self, size: Size, group: int, need: Need, steps: int, batch_size: int, rate: float, length: int
    ) -> Iterator[Cell]:
        budgets = not hasattr(self.grid, "tokens")
        wsd = isinstance(self.pipeline.retrieval.training.optimizer.schedule, WarmupStableDecay)
        for seed in self.seeds_at[group] if self.seeds_at else self.seeds:
            for factor in self.learning_rate_factors:
                trial = "" if factor == 1 else f"-lr{factor:g}"
                yield Cell(
                    cell_id=f"{self.grid.letter}{group:02d}-{size.name}-s{seed}{trial}",
                    size=size.name,
                    decoder=size.decoder,
                    group=group,
                    budget=need.flops,
                    horizon=None if budgets else float(self.grid.groups[group]),
                    held_out=group in self.held_out_groups,
                    seed=seed,
                    learning_rate=rate * factor,
                    learning_rate_factor=factor,
                    steps=steps,
                    batch_size=batch_size,
                    length=length,
                    warmup_steps=round(self.warmup_share * steps),
                    decay_steps=round(self.decay_share * steps) if wsd else 0,
                )

    def _on_trunks(self, places: Sequence[Cell | LeftOut]) -> Iterator[Cell | LeftOut]:
        """The cells with the warm-up of their trunk's shortest run, and the steps at which its runs branch off."""
        trunks: dict[str, list[Cell]] = {}
        for place in places:
            if isinstance(place, Cell):
                trunks.setdefault(place.trunk_name, []).append(place)
        for place in places:
            if isinstance(place, LeftOut):
                yield place
                continue
            runs = trunks[place.trunk_name]
            branches = sorted(run.steps - run.decay_steps for run in runs)
            warmup = min(run.warmup_steps for run in runs)
            if len(set(branches)) < len(branches) or not warmup < branches[0]:
                raise StudyError(
                    f"study {self.name}, trunk {place.trunk_name}: runs of {sorted(run.steps for run in runs)} steps "
                    f"branch off at {branches} after a warm-up of {warmup}: expected different steps behind the "
                    "warm-up; set groups further apart, or lower warmup_share or decay_share"
                )
            own = place.steps - place.decay_steps
            up_to = tuple(step for step in branches if step <= own)
            yield dataclasses.replace(place, warmup_steps=warmup, branches=up_to)

    def _outside(self, steps: int, tokens: float, data: DataFacts) -> str:
        """Why a place is out of the grid's bounds; "" when it is not."""
        grid = self.grid
        if steps < grid.min_steps:
            return f"fewer than min_steps {grid.min_steps}"
        if grid.max_epochs is not None:
            if data.unique_tokens is None:
                raise StudyError(f"study {self.name}: max_epochs needs the number of unique tokens, which is not known")
            if tokens > grid.max_epochs * data.unique_tokens:
                return f"more than max_epochs {grid.max_epochs:g}"
        return ""

    def _require_near(self, size: Size, group: float, need: Need, steps: int, batch_size: int, data: DataFacts) -> None:
        positions = steps * batch_size * data.length
        miss = positions / need.positions - 1
        if abs(miss) <= LARGEST_MISS:
            return
        step = batch_size * data.length * flops_per_position(size.decoder, data, self.grid.convention)
        raise StudyError(
            f"study {self.name}, size {size.name} at {group:.3g}: one step of {batch_size} rows takes {step:.3g} "
            f"FLOPs, so {steps} steps miss the budget by {miss:+.1%}, more than {LARGEST_MISS:.0%}: lower batch_size "
            f"to {max(1, int(need.positions / data.length / 50))} or less there, take the size out (min_steps), or "
            "raise the budget"
        )
