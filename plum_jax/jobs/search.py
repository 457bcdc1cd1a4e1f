"""The job that searches for the settings of a system on the validation users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plum_jax.studies.search import Search
from plum_jax.systems.generative.pipeline import Pipeline
from plum_jax.training.run_record import write_rows


def search_settings(
    model_dir: str, pipeline: Pipeline, search: Search, seed: int = 0, results_file: str | None = None
) -> None:
    """Trains the trials of a search, writes MODEL_DIR/trials.jsonl, the best first, and prints it as a table.

    Args:
      model_dir: of the search; trials lie in MODEL_DIR/systems.
      pipeline: its data are what the trials share; its decoder is not trained.
      search: what is tried.
      seed: of the run, in the rows of systems that have none of their own.
      results_file: a study's rows, which also get these.
    """
    stages = pipeline.data.stages(model_dir)
    rows = search.rows(stages, {"data": stages.corpus.name, "seed": seed})
    write_rows(stages.directory / "trials.jsonl", rows)
    if results_file:
        write_rows(results_file, rows)
    print(trials_table(rows))


def trials_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Settings and best evaluation of each trial, as text."""
    names = list(rows[0]["settings"])
    short = {name: name.rpartition(".")[2] for name in names}
    first = rows[0]
    lines = [f"{first['trials']} trials of {first['places']}, by {first['by']} of the validation users"]
    lines.append("".join(f"{short[name]:>20s}" for name in names) + f"{'best':>10s}{'step':>8s}{'seconds':>10s}")
    for row in rows:
        settings = "".join(f"{row['settings'][name]!s:>20s}" for name in names)
        lines.append(f"{settings}{row['best']:10.4f}{row['best_step']:8d}{row['train_seconds']:10.0f}")
    return "\n".join(lines)
