"""Jobs of scaling studies, for `gin/run/study_*.gin`."""

from __future__ import annotations

from etils import epath

from plum_jax.evaluation.scalable import DataFacts
from plum_jax.studies import cell as cells
from plum_jax.studies.machines import Machine
from plum_jax.studies.plan import Assumptions, plan, write_plan
from plum_jax.studies.plan_table import plan_text
from plum_jax.studies.shared import shared
from plum_jax.studies.study import Study


def plan_study(
    model_dir: str,
    study: Study,
    machine: Machine | None = None,
    assumptions: Assumptions | None = None,
    data: DataFacts | None = None,
    write: bool = True,
) -> None:
    """Makes what all cells share, prints every cell with its cost, and writes STUDY_DIR/plan.json.

    Args:
      model_dir: the study's directory.
      study: to be planned.
      machine: where its cells will run; None: here.
      assumptions: of the expected errors.
      data: figures of data that is not there yet, to plan with; nothing is made then, and no plan is written.
      write: whether the plan is kept; else it is printed only, to be compared with others.
    """
    known = shared(study, model_dir).data if data is None else data
    made = plan(study, model_dir, known, machine, assumptions)
    print(plan_text(made))
    if write and data is None:
        write_plan(made, model_dir)


def run_cell(model_dir: str, study: Study, cell_id: str) -> None:
    """One cell, in this process: trains, evaluates, writes STUDY_DIR/cells/<cell_id>/record.json.

    Args:
      model_dir: the cell's directory, `records.cell_directory(study_dir, cell_id)`.
      study: of which the cell is.
      cell_id: its name.
    """
    study_dir = epath.Path(model_dir).parent.parent
    row = cells.run_cell(study, cell_id, study_dir)
    figures = {name: row.get(name) for name in ("loss", "loss_se", "recall@10", "tokens", "wall_seconds")}
    shown = ", ".join(f"{name} {value:.6g}" for name, value in figures.items() if value is not None)
    print(f"{cell_id}: {row['status']} {row['reason'] or shown}")
