"""The job that chooses the rates of CPT's tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plum_jax.systems.generative.mixture_rates import MixtureSearch, write_choice
from plum_jax.systems.generative.pipeline import Pipeline


def choose_mixture_rates(model_dir: str, pipeline: Pipeline, search: MixtureSearch) -> None:
    """Trains proxies until no task is far behind, and writes MODEL_DIR/mixture_rates/rates.gin for a run.

    Args:
      model_dir: of the search.
      pipeline: its data, tasks and decoder are what proxies train on; its phases are not run.
      search: how.
    """
    stages = pipeline.stages(model_dir)
    rows = search.choose(stages)
    path = write_choice(stages.directory / "mixture_rates", rows)
    print(rounds_table(rows))
    print(f"rates: {path}")


def rounds_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rates and excess of each task by round, and the gap, as text."""
    names = list(rows[0]["rates"])
    lines = [f"{'rate, excess (nats a token)':28s}" + "".join(f"{name:>24s}" for name in names) + f"{'gap':>10s}"]
    for row in rows:
        cells = "".join(f"{row['rates'][name]:15.3f} {row['excess'][name]:+8.4f}" for name in names)
        lines.append(f"{'round ' + str(row['round']):28s}{cells}{row['gap']:10.4f}")
    return "\n".join(lines)
