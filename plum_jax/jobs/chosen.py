"""Which system of a run a job is about."""

from __future__ import annotations

import json
from collections.abc import Mapping

from plum_jax.evaluation.system import System
from plum_jax.stages import Stages
from plum_jax.systems.generative.system import FittedDecoder


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


def chosen_decoder(
    stages: Stages, systems: Mapping[str, System], name: str | None, others: str
) -> tuple[str, FittedDecoder]:
    """A decoder by name, trained if it is not yet.

    Args:
      stages: of the run.
      systems: those of the run.
      name: as in `chosen_system`.
      others: what is said of a system that is none, e.g. "takes no words".

    Raises:
      ValueError: no such system, or one that is no decoder.
    """
    name, chosen = chosen_system(stages, systems, name)
    fitted = chosen.fit(stages, name)
    if not isinstance(fitted, FittedDecoder):
        raise ValueError(f"system {name!r} {others}: set SYSTEM to a decoder, such as 'with_cpt'")
    return name, fitted
