"""What a job has measured of a finished run, as a file of the run and as a row of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plum_jax import artifact
from plum_jax.evaluation.system import Fitted
from plum_jax.stages import Stages
from plum_jax.training.run_record import run_record, write_rows


def write_measured(
    stages: Stages,
    fitted: Fitted,
    what: str,
    rows: Sequence[Mapping[str, Any]],
    results_file: str | None,
    **facts: Any,
) -> None:
    """Writes MODEL_DIR/<what>.json: a run record with "rows"; and adds it to a study's rows, where a file is named.

    Args:
      stages: of the run.
      fitted: the system that was asked.
      what: name of the file and of the record.
      rows: figures.
      results_file: of the study.
      **facts: what the record says besides.
    """
    said = {"data": stages.corpus.name, "seed": fitted.facts.get("seed"), **facts, "rows": list(rows)}
    record = run_record(what, {}, **said)
    artifact.write_json(stages.directory / f"{what}.json", record)
    if results_file:
        write_rows(results_file, [record])
    print(f"{what}: {stages.directory / f'{what}.json'}")
