"""How long a train step takes on this machine: measured on the very step, at two batch sizes of each size."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath
from tqdm import tqdm

from plum_jax import artifact
from plum_jax.evaluation.scalable import DataFacts
from plum_jax.studies.places import Cell
from plum_jax.studies.study import Study
from plum_jax.training.step import initial_state, make_train_step

STEP_TIMES = "step_seconds.json"
_MOST_STEPS, _ENOUGH_SECONDS = 20, 0.5


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Of one size and batch.

    Attributes:
      seconds: of a step, the fastest of a few: what else the machine does is not the step's.
      compile_seconds: of the first step, less than a fresh compilation where the program was in JAX's cache.
    """

    seconds: float
    compile_seconds: float


def step_times(study: Study, cells: Sequence[Cell], data: DataFacts, directory: epath.Path) -> dict[str, float]:
    """Seconds of a step for each cell, by cell id.

    Each size is measured at the smallest and the largest batch that its cells have, once for a directory and
    machine; between them the time is taken as a straight line over rows.
    """
    path = directory / STEP_TIMES
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    by_size: dict[str, list[Cell]] = {}
    for cell in cells:
        by_size.setdefault(cell.size, []).append(cell)
    ends = {
        size: (min(of, key=lambda c: c.batch_size), max(of, key=lambda c: c.batch_size)) for size, of in by_size.items()
    }
    missing = {key: cell for pair in ends.values() for cell in pair if (key := _key(study, cell, data)) not in known}
    for key, cell in tqdm(missing.items(), desc="timing steps", unit="step", disable=not missing):
        known[key] = dataclasses.asdict(measure_step(study, cell, data))
        artifact.write_json(path, known)
    return {cell.cell_id: _between(study, cell, ends[cell.size], data, known) for cell in cells}


def measure_step(study: Study, cell: Cell, data: DataFacts) -> StepTime:
    """Compiles the step of a cell and runs it on random values, for about half a second."""
    recipe = study.system_of(cell).step(data)
    training, mesh = recipe.training, recipe.training.mesh.build()
    optimizer, key = training.transformation(), jax.random.key(0)
    state = initial_state(recipe.init_params, optimizer, key, mesh)
    step = make_train_step(recipe.objective(mesh), optimizer, training.microbatches, key, mesh, state)
    batch = jax.device_put(recipe.batch())
    began = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, batch))
    compile_seconds = time.perf_counter() - began
    seconds: list[float] = []
    while len(seconds) < _MOST_STEPS and sum(seconds) < _ENOUGH_SECONDS:
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        seconds.append(time.perf_counter() - began)
    return StepTime(min(seconds), compile_seconds)


def _key(study: Study, cell: Cell, data: DataFacts) -> str:
    machine = f"{os.cpu_count()} x {platform.machine()} {jax.devices()[0].device_kind}"
    shape = f"{cell.batch_size}x{cell.length} v{data.vocab_size}"
    what = artifact.fingerprint(type(study.system).__name__, cell.decoder)
    return f"{machine}: {cell.size} {what} {shape}"


def _between(study: Study, cell: Cell, ends: tuple[Cell, Cell], data: DataFacts, known: Mapping[str, Any]) -> float:
    low, high = ends
    at_low, at_high = (known[_key(study, end, data)]["seconds"] for end in ends)
    if low.batch_size == high.batch_size:
        return at_low
    share = (cell.batch_size - low.batch_size) / (high.batch_size - low.batch_size)
    return at_low + share * (at_high - at_low)
