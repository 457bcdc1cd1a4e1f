"""Jobs of scaling studies, for `gin/run/study_*.gin`."""

from __future__ import annotations

from etils import epath

from plum_jax.studies import cell as cells
from plum_jax.studies.study import Study


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
