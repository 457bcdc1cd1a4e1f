"""The plan of a study: every cell with what it is and what it will cost, before anything is trained."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from etils import epath

from plum_jax import artifact
from plum_jax.evaluation.scalable import DataFacts
from plum_jax.scaling.design import ExpectedErrors, GuessedLaw, Law, expected_standard_errors
from plum_jax.studies.machines import Here, Machine, StepCost
from plum_jax.studies.places import Cell, LeftOut, StudyError
from plum_jax.studies.solve import solve
from plum_jax.studies.study import Study
from plum_jax.studies.warnings import plan_warnings

PLAN = "plan.json"
# Process start, reading what is shared, compiling step, loss and search, writing: measured on 2 CPU cores.
START_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What a plan reckons with before anything is known.

    Attributes:
      law: of the loss, a guess or the fit of a pilot; for the expected errors and for where minima lie.
      noise: standard deviation of log loss between two seeds.
    """

    law: Law = GuessedLaw()
    noise: float = 0.005


def plan(
    study: Study,
    study_dir: epath.PathLike,
    data: DataFacts,
    machine: Machine | None = None,
    assumptions: Assumptions | None = None,
) -> dict[str, Any]:
    """All figures of the study, as JSON values; times or compiles the steps that are not known yet."""
    machine, assumptions = machine or Here(), assumptions or Assumptions()
    places = solve(study, data)
    cells = [place for place in places if isinstance(place, Cell)]
    costs = machine.step_costs(study, cells, data, epath.Path(study_dir))
    chips = machine.chips
    rows = [cell_figures(study, cell, data, costs[cell.cell_id], chips, machine.price) for cell in cells]
    left_out = [dataclasses.asdict(place) for place in places if isinstance(place, LeftOut)]
    return {
        "study": study.name,
        "data": dataclasses.asdict(data),
        "flops_convention": study.grid.convention,
        "machine": {"name": machine.name, "chips": chips, "price_per_chip_hour": machine.price},
        "cells": rows,
        "left_out": left_out,
        "total": _total(rows),
        "expected_errors": _errors_as_json(expected_errors(rows, assumptions)),
        "warnings": plan_warnings(rows, assumptions.law),
    }


def cell_figures(
    study: Study, cell: Cell, data: DataFacts, cost: StepCost, chips: int = 1, price: float | None = None
) -> dict[str, Any]:
    """The row of one cell."""
    system = study.system_of(cell)
    counts = system.counts(data)
    positions = cell.steps * cell.batch_tokens
    tokens = positions * data.fill
    parts = system.flops_parts(data)
    return {
        "cell_id": cell.cell_id,
        "fingerprint": cell_fingerprint(study, cell),
        "size": cell.size,
        "group": cell.group,
        "budget": cell.budget,
        "horizon": cell.horizon,
        "held_out": cell.held_out,
        "seed": cell.seed,
        "learning_rate": cell.learning_rate,
        "learning_rate_factor": cell.learning_rate_factor,
        "batch_size": cell.batch_size,
        "batch_tokens": cell.batch_tokens,
        "steps": cell.steps,
        "steps_spent": cell.steps_spent,
        "positions": positions,
        "tokens": round(tokens),
        "epochs": None if not data.unique_tokens else tokens / data.unique_tokens,
        "parameters": counts["total"],
        "non_embedding_parameters": counts["non_embedding"],
        "activated_parameters": counts["activated"],
        "activated_non_embedding_parameters": counts["activated_non_embedding"],
        "tokens_per_parameter": tokens / counts["total"],
        "flops": cell.flops,
        "flops_6nd": cell.flops_6nd,
        "flops_spent": cell.flops * cell.steps_spent / cell.steps,
        **{f"flops_{part}": positions * per_position for part, per_position in parts.items()},
        **_costs(cell, cost, system.evaluation_flops(data), chips, price),
    }


def _costs(cell: Cell, cost: StepCost, evaluation: float, chips: int, price: float | None) -> dict[str, Any]:
    train = whole = None
    if cost.seconds is not None:
        train = cell.steps_spent * cost.seconds
        # Evaluation goes at the rate of training.
        whole = START_SECONDS + train + cell.steps * cost.seconds * evaluation / cell.flops
    chip_hours = None if whole is None else whole * chips / 3600
    return {
        "step_seconds": cost.seconds,
        "step_seconds_at_least": cost.seconds_at_least,
        "train_seconds": train,
        "predicted_seconds": whole,
        "chip_hours": chip_hours,
        "cost": None if chip_hours is None or price is None else chip_hours * price,
        "peak_hbm_bytes": cost.peak_hbm_bytes,
        "hbm_bytes": cost.hbm_bytes,
        "fits": cost.fits,
    }


def expected_errors(rows: Sequence[dict[str, Any]], assumptions: Assumptions) -> ExpectedErrors:
    """What the cells that are not held out can teach (Fisher information)."""
    fitted = [row for row in rows if not row["held_out"]] or rows
    parameters, tokens = ([float(row[name]) for row in fitted] for name in ("parameters", "tokens"))
    return expected_standard_errors(parameters, tokens, assumptions.law, assumptions.noise)


def cell_fingerprint(study: Study, cell: Cell) -> str:
    """Of all that decides what a cell's run gives, short of the shared data's own content."""
    return artifact.fingerprint(study.shared_config, study.system_of(cell).own_config)


def write_plan(made: dict[str, Any], study_dir: epath.PathLike) -> None:
    """Writes `plan.json`, or lets it grow by new cells.

    Raises:
      StudyError: the plan that is there has cells that this one lacks or states otherwise.
    """
    path = epath.Path(study_dir) / PLAN
    if path.exists():
        old = json.loads(path.read_text())
        _require_same(old["cells"], made["cells"], path)
        if len(old["cells"]) == len(made["cells"]):
            return
    artifact.write_json(path, made)


def read_plan(study_dir: epath.PathLike) -> dict[str, Any]:
    """What `write_plan` wrote.

    Raises:
      StudyError: no plan there.
    """
    path = epath.Path(study_dir) / PLAN
    if not path.exists():
        raise StudyError(f"there is no plan at {path}: run gin/run/study_plan.gin with the study's files first")
    return json.loads(path.read_text())


def _total(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums; of what is not known of every cell, of those of which it is."""

    def total(name: str) -> float | None:
        known = [row[name] for row in rows if row[name] is not None]
        return sum(known) if known else None

    names = ("flops", "flops_6nd", "flops_spent", "tokens", "predicted_seconds", "chip_hours", "cost")
    return {"cells": len(rows), **{name: total(name) for name in names}}


def _errors_as_json(errors: ExpectedErrors) -> dict[str, Any]:
    """Without infinities, which JSON has not: what is not identified is null."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: finite(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [finite(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {**finite(dataclasses.asdict(errors)), "text": errors.text()}


def _require_same(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], path: epath.Path) -> None:
    now = {row["cell_id"]: row for row in new}
    for row in old:
        name = row["cell_id"]
        if name not in now:
            raise StudyError(
                f"{path} has the cell {name}, which this study has not: a study may grow by new cells, and lose none; "
                "set it as it was, or take another STUDY_DIR"
            )
        if row["fingerprint"] != now[name]["fingerprint"]:
            shown = ("steps", "batch_size", "learning_rate", "parameters", "budget")
            changed = [f"{key} {row[key]} -> {now[name][key]}" for key in shown if row[key] != now[name][key]]
            raise StudyError(
                f"{path} was written for another study: cell {name} differs in "
                f"{', '.join(changed) or 'its data, task, optimizer or evaluation'}; set it as it was, or take another "
                "STUDY_DIR"
            )
