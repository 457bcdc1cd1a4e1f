"""Jobs that run a study's cells, for `gin/run/study_run.gin`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from plum_jax.studies.results import StudyFiles

# Behind the arguments of this process they make the command of one cell; it sets no macro but CELL.
ONE_CELL = "gin/run/study_one_cell.gin"


class Launcher(Protocol):
    """Where cells run: a frozen dataclass of `launch_local`, `launch_ray` or `pod_commands`."""

    def launch(self, files: StudyFiles, command: Callable[[str], Sequence[str]], show: Callable[[], None]) -> None:
        """Runs all cells that are not done and may run; `show` is called after each."""


def run_study(model_dir: str, launcher: Launcher, command: Sequence[str]) -> None:
    """Runs the cells of a planned study, by as many workers as the launcher starts; others may work beside them.

    Args:
      model_dir: STUDY_DIR.
      launcher: where cells run.
      command: argv that started this process (`plum_jax.run.own_command`).
    """
    files = StudyFiles(model_dir)

    def cell_command(name: str) -> list[str]:
        return [*command, f"--gin_file={ONE_CELL}", f"--gin.CELL={name!r}"]

    def show() -> None:
        done = sum(files.row(cell.name) is not None for cell in files.planned())
        print(f"{done} of {len(files.planned())} cells are done")

    launcher.launch(files, cell_command, show)
    files.collect()
    print(f"rows: {files.results}")
