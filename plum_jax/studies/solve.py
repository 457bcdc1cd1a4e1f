"""The cells of a study: for every place of its grid steps, batch and rate, or the reason why it is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from plum_jax.evaluation.scalable import DataFacts
from plum_jax.studies.grid import IsoFlop, Need, flops_per_position
from plum_jax.studies.places import Cell, LeftOut, StudyError
from plum_jax.studies.rules import Size
from plum_jax.studies.study import Study
from plum_jax.training.schedules import WarmupStableDecay

LARGEST_MISS = 0.01  # of a budget, that steps of whole batches may leave or exceed


def cells_of(study: Study, data: DataFacts) -> tuple[Cell, ...]:
    """All runs of a study, those of the smallest groups first; `solve` without the places that are left out."""
    return tuple(place for place in solve(study, data) if isinstance(place, Cell))


def solve(study: Study, data: DataFacts) -> tuple[Cell | LeftOut, ...]:
    """All places, those of the smallest groups first.

    Raises:
      StudyError: no cell, one whose steps cannot come within 1% of its budget, or runs that cannot share a trunk.
    """
    groups = study.grid.groups
    found = [
        place for group in sorted(range(len(groups)), key=groups.__getitem__) for place in _group(study, group, data)
    ]
    if not any(isinstance(place, Cell) for place in found):
        reasons = "; ".join(sorted({place.reason for place in found if isinstance(place, LeftOut)}))
        raise StudyError(f"study {study.name}: no cell is left by the grid's bounds ({reasons}): loosen them")
    return tuple(_on_trunks(study, found)) if study.shared_trunks else tuple(found)


def _group(study: Study, group: int, data: DataFacts) -> Iterator[Cell | LeftOut]:
    value, sizes = study.grid.groups[group], study.all_sizes
    parameters = [study.of_size(size).counts(data)["total"] for size in sizes]
    multiple = study.batch_multiple
    for place in study.grid.chosen(parameters, value):
        size = sizes[place]
        facts, need = _facts(study, size, 1, value, data)
        batch_size = multiple * max(1, round(study.batch_size(**facts) / multiple))
        # What a position costs may hang on the batch, whose rows share the items that are drawn.
        facts, need = _facts(study, size, batch_size, value, data)
        steps = round(need.positions / (batch_size * data.length))
        reason = _out_of_bounds(study, steps, need.tokens, data)
        if reason:
            yield LeftOut(size.name, group, reason)
            continue
        _require_near(study, size, value, need, steps, batch_size, data)
        yield from _trials(study, size, group, need, steps, batch_size, study.learning_rate(**facts), data)


def _facts(study: Study, size: Size, batch_size: int, value: float, data: DataFacts) -> tuple[dict[str, float], Need]:
    """What rules look at, and what a place of the grid needs."""
    system = study.of_size(size, batch_size)
    need = study.grid.need(system, value, data)
    return {"parameters": system.counts(data)["total"], "tokens": need.tokens, "flops": need.flops}, need


def _trials(
    study: Study, size: Size, group: int, need: Need, steps: int, batch_size: int, rate: float, data: DataFacts
) -> Iterator[Cell]:
    """The cells of one place: every seed with every learning-rate factor."""
    grid, system = study.grid, study.of_size(size, batch_size)
    positions = steps * batch_size * data.length
    costs = {convention: positions * flops_per_position(system, data, convention) for convention in ("exact", "6nd")}
    wsd = isinstance(study.system.training.optimizer.schedule, WarmupStableDecay)
    for seed in study.seeds_at[group] if study.seeds_at else study.seeds:
        for factor in study.learning_rate_factors:
            trial = "" if factor == 1 else f"-lr{factor:g}"
            yield Cell(
                cell_id=f"{grid.letter}{group:02d}-{size.name}-s{seed}{trial}",
                size=size.name,
                decoder=size.decoder,
                group=group,
                budget=need.flops,
                horizon=None if isinstance(grid, IsoFlop) else float(grid.groups[group]),
                held_out=group in study.held_out_groups,
                seed=seed,
                learning_rate=rate * factor,
                learning_rate_factor=factor,
                steps=steps,
                batch_size=batch_size,
                length=data.length,
                flops=costs["exact"],
                flops_6nd=costs["6nd"],
                warmup_steps=round(study.warmup_share * steps),
                decay_steps=round(study.decay_share * steps) if wsd else 0,
            )


def _on_trunks(study: Study, places: Sequence[Cell | LeftOut]) -> Iterator[Cell | LeftOut]:
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
                f"study {study.name}, trunk {place.trunk_name}: runs of {sorted(run.steps for run in runs)} steps "
                f"branch off at {branches} after a warm-up of {warmup}: expected different steps behind the warm-up; "
                "set groups further apart, or lower warmup_share or decay_share"
            )
        own = place.steps - place.decay_steps
        up_to = tuple(step for step in branches if step <= own)
        yield dataclasses.replace(place, warmup_steps=warmup, branches=up_to)


def _out_of_bounds(study: Study, steps: int, tokens: float, data: DataFacts) -> str:
    """Why a place is out of the grid's bounds; "" when it is not."""
    grid = study.grid
    if steps < grid.min_steps:
        return f"fewer than min_steps {grid.min_steps}"
    if grid.max_epochs is not None:
        if data.unique_tokens is None:
            raise StudyError(f"study {study.name}: max_epochs needs the number of unique tokens, which is not known")
        if tokens > grid.max_epochs * data.unique_tokens:
            return f"more than max_epochs {grid.max_epochs:g}"
    return ""


def _require_near(
    study: Study, size: Size, group: float, need: Need, steps: int, batch_size: int, data: DataFacts
) -> None:
    positions = steps * batch_size * data.length
    miss = positions / need.positions - 1
    if abs(miss) <= LARGEST_MISS:
        return
    step = batch_size * data.length * flops_per_position(study.of_size(size, batch_size), data, study.grid.convention)
    raise StudyError(
        f"study {study.name}, size {size.name} at {group:.3g}: one step of {batch_size} rows takes {step:.3g} FLOPs, "
        f"so {steps} steps miss the budget by {miss:+.1%}, more than {LARGEST_MISS:.0%}: lower batch_size to "
        f"{max(1, int(need.positions / data.length / 50))} or less there, take the size out (min_steps), or raise the "
        "budget"
    )
