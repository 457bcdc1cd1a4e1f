"""Jobs of scaling studies, for `gin/run/study_*.gin`."""

from __future__ import annotations

from etils import epath

from plum_jax.studies import cell as cells
from plum_jax.studies.plan import plan, write_plan
from plum_jax.studies.plan_table import plan_text
from plum_jax.studies.shared import shared
from plum_jax.studies.study import Study


def plan_study(model_dir: str, study: Study) -> None:
    """Makes what all cells share, prints every cell with its cost, and writes STUDY_DIR/plan.json.

    Args:
      model_dir: the study's directory.
      study: to be planned.
    """
    made = plan(study, model_dir, shared(study, model_dir).data)
    print(plan_text(made))
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
