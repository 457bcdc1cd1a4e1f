"""How long a train step takes on this machine: measured on the very step, at two batch sizes of each decoder."""

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
from plum_jax.feeds.packing import random_rows
from plum_jax.model.decoder import Decoder
from plum_jax.studies.grid import DataFacts
from plum_jax.studies.places import Cell
from plum_jax.studies.study import Study
from plum_jax.training.initial import initial_params
from plum_jax.training.step import initial_state, make_train_step

STEP_TIMES = "step_seconds.json"
_MOST_STEPS, _ENOUGH_SECONDS = 20, 0.5


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Of one decoder and batch size.

    Attributes:
      seconds: of a step, the fastest of a few: what else the machine does is not the step's.
      compile_seconds: of the first step, less than a fresh compilation where the program was in JAX's cache.
    """

    seconds: float
    compile_seconds: float


def step_times(study: Study, cells: Sequence[Cell], data: DataFacts, directory: epath.Path) -> dict[str, float]:
    """Seconds of a step for each cell, by cell id.

    Each decoder is measured at the smallest and the largest batch that its cells have, once for a directory and
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
    missing = {_key(cell, data): cell for pair in ends.values() for cell in pair if _key(cell, data) not in known}
    for key, cell in tqdm(missing.items(), desc="timing steps", unit="step", disable=not missing):
        known[key] = dataclasses.asdict(measure_step(study, cell, data))
        artifact.write_json(path, known)
    return {cell.cell_id: _between(cell, ends[cell.size], data, known) for cell in cells}


def measure_step(study: Study, cell: Cell, data: DataFacts) -> StepTime:
    """Compiles the step of a cell and runs it on random tokens, for about half a second."""
    phase = study.phase(cell)
    decoder, mesh = Decoder(cell.decoder, data.vocab_size), phase.training.mesh.build()
    optimizer, key = phase.training.optimizer.build(cell.steps), jax.random.key(0)
    state = initial_state(initial_params(decoder), optimizer, key, mesh)
    step = make_train_step(phase.objective.on(decoder, mesh), optimizer, phase.training.microbatches, key, mesh, state)
    batch = jax.device_put(random_rows(cell.batch_size, cell.length, data.vocab_size))
    began = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, batch))
    compile_seconds = time.perf_counter() - began
    seconds: list[float] = []
    while len(seconds) < _MOST_STEPS and sum(seconds) < _ENOUGH_SECONDS:
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        seconds.append(time.perf_counter() - began)
    return StepTime(min(seconds), compile_seconds)


def _key(cell: Cell, data: DataFacts) -> str:
    machine = f"{os.cpu_count()} x {platform.machine()} {jax.devices()[0].device_kind}"
    shape = f"{cell.batch_size}x{cell.length} v{data.vocab_size}"
    return f"{machine}: {cell.size} {artifact.fingerprint(cell.decoder)} {shape}"


def _between(cell: Cell, ends: tuple[Cell, Cell], data: DataFacts, known: Mapping[str, Any]) -> float:
    low, high = ends
    at_low, at_high = (known[_key(end, data)]["seconds"] for end in ends)
    if low.batch_size == high.batch_size:
        return at_low
    share = (cell.batch_size - low.batch_size) / (high.batch_size - low.batch_size)
    return at_low + share * (at_high - at_low)
