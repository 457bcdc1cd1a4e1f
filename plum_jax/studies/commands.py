"""The command lines of a study, made from the one that started this process."""

from __future__ import annotations

import dataclasses

# Behind the arguments of gin/run/study_run.gin it makes them the command of one cell; it sets no macro but CELL.
ONE_CELL = "gin/run/study_one_cell.gin"


@dataclasses.dataclass(frozen=True)
class Commands:
    """Commands with the same gin files and flags.

    Attributes:
      start: argv that started this process (`plum_jax.run.own_command`).
    """

    start: tuple[str, ...]

    def cell(self, name: str) -> list[str]:
        """Runs one cell in its process."""
        return [*self.start, f"--gin_file={ONE_CELL}", f"--gin.CELL={name!r}"]

    def worker(self) -> list[str]:
        """A worker of the machine that it is started on, whatever launcher this process has."""
        return [*self.start, "--gin.LAUNCHER=@launch_local.Local()"]
