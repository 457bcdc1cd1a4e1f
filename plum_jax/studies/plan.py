"""The plan of a study: every cell with what it is and what it will cost, before anything is trained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from plum_jax import artifact
from plum_jax.model.counts import forward_flops_per_token, parameter_counts
from plum_jax.studies.grid import DataFacts
from plum_jax.studies.step_timing import step_times
from plum_jax.studies.study import Cell, LeftOut, Study, StudyError

PLAN = "plan.json"
# Process start, reading what is shared, compiling step, loss and search, writing: measured on 2 CPU cores.
START_SECONDS = 15.0


def plan(study: Study, study_dir: epath.PathLike, data: DataFacts) -> dict[str, Any]:
    """All figures of the study, as JSON values; times the steps of this machine that are not known yet."""
    places = study.places(data)
    cells = [place for place in places if isinstance(place, Cell)]
    seconds = step_times(study, cells, data, epath.Path(study_dir))
    rows = [cell_figures(study, cell, data, seconds[cell.cell_id]) for cell in cells]
    return {
        "study": study.name,
        "data": dataclasses.asdict(data),
        "flops_convention": study.grid.convention,
        "cells": rows,
        "left_out": [
            {"size": place.size, "group": place.group, "reason": place.reason}
            for place in places
            if isinstance(place, LeftOut)
        ],
        "total": {
            name: sum(row[name] for row in rows) for name in ("flops", "flops_6nd", "tokens", "predicted_seconds")
        }
        | {"cells": len(rows)},
    }


def cell_figures(study: Study, cell: Cell, data: DataFacts, step_seconds: float) -> dict[str, Any]:
    """The row of one cell."""
    counts = parameter_counts(cell.decoder, data.vocab_size)
    positions = cell.steps * cell.batch_tokens
    tokens = positions * data.fill
    flops = cell.flops(data.vocab_size)
    rate = flops / cell.steps / step_seconds
    evaluation = evaluation_flops(study, cell, data) / rate
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
        "positions": positions,
        "tokens": round(tokens),
        "epochs": None if not data.unique_tokens else tokens / data.unique_tokens,
        "parameters": counts["total"],
        "non_embedding_parameters": counts["non_embedding"],
        "activated_parameters": counts["activated"],
        "activated_non_embedding_parameters": counts["activated_non_embedding"],
        "tokens_per_parameter": tokens / counts["total"],
        "flops": flops,
        "flops_6nd": cell.flops_6nd(data.vocab_size),
        "step_seconds": step_seconds,
        "train_seconds": cell.steps * step_seconds,
        "predicted_seconds": START_SECONDS + cell.steps * step_seconds + evaluation,
    }


def evaluation_flops(study: Study, cell: Cell, data: DataFacts) -> float:
    """Forward FLOPs of the held-out loss and the beam search over the test users."""
    per_token = forward_flops_per_token(cell.decoder, data.vocab_size, data.prompt_tokens / 2)
    searched = study.pipeline.evaluation.num_beams * (data.sid_levels - 1)
    return data.evaluation_users * per_token * (2 * data.prompt_tokens + data.sid_levels + searched)


def cell_fingerprint(study: Study, cell: Cell) -> str:
    """Of all that decides what a cell's run gives, short of the shared data's own content."""
    return artifact.fingerprint(study.shared_config, study.pipeline.evaluation, cell.decoder, study.phase(cell))


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
