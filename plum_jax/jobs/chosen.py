"""Which system of a run a job is about."""

from __future__ import annotations

import json
from collections.abc import Mapping

from plum_jax.evaluation.system import System
from plum_jax.stages import Stages


def chosen_system(stages: Stages, systems: Mapping[str, System], name: str | None) -> tuple[str, System]:
    """A system by name; by default that of the last row of the run's table, whose lists the report shows.

    Raises:
      ValueError: no such system.
    """
    if name is None:
        # A configuration that was saved has its systems in order of their names.
        rows = stages.directory / "results.jsonl"
        name = json.loads(rows.read_text().splitlines()[-1])["name"] if rows.exists() else list(systems)[-1]
    if name not in systems:
        raise ValueError(f"SYSTEM is {name!r}, but the run has {', '.join(systems)}")
    return name, systems[name]
