"""The job that runs a study's cells, for `gin/run/study_run.gin`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from plum_jax.evaluation.scalable import DataFacts
from plum_jax.studies.commands import Commands
from plum_jax.studies.places import StudyError
from plum_jax.studies.plan import cell_fingerprint, read_plan
from plum_jax.studies.progress import LiveTable
from plum_jax.studies.results import StudyFiles
from plum_jax.studies.solve import cells_of
from plum_jax.studies.study import Study


class Launcher(Protocol):
    """Where cells run: a frozen dataclass of `launch_local`, `launch_ray` or `pod_commands`."""

    def launch(self, files: StudyFiles, commands: Commands, table: LiveTable) -> None:
        """Runs all cells that are not done and may run; what there is to say goes to the table."""


def run_study(model_dir: str, study: Study, launcher: Launcher, command: Sequence[str]) -> None:
    """Runs the cells of a planned study, by as many workers as the launcher starts; others may work beside them.

    Args:
      model_dir: STUDY_DIR.
      study: as it was planned.
      launcher: where cells run.
      command: argv that started this process (`plum_jax.run.own_command`).

    Raises:
      StudyError: no plan, or one of another study.
    """
    files = StudyFiles(model_dir)
    _require_planned(study, model_dir)
    launcher.launch(files, Commands(tuple(command)), LiveTable(files))


def _require_planned(study: Study, study_dir: str) -> None:
    plan = read_plan(study_dir)
    now = {cell.cell_id: cell_fingerprint(study, cell) for cell in cells_of(study, DataFacts(**plan["data"]))}
    changed = [row["cell_id"] for row in plan["cells"] if now.get(row["cell_id"]) != row["fingerprint"]]
    if changed:
        raise StudyError(
            f"{study_dir}/plan.json was written for another study: {len(changed)} cells differ, the first is "
            f"{changed[0]}; give the gin files and flags that it was planned with, or take another STUDY_DIR"
        )
