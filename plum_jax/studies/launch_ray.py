"""The cells of a study on a Ray cluster, a task for each. Needs ray (pip install 'plum_jax[ray]').

Ray says where and when a cell runs; what is done and who does it stays in the study's directory, which all nodes must
see (NFS), with plum_jax installed. So local workers may help, a second launch does no cell twice, and when a node is
lost Ray starts the task elsewhere, which takes the cell over when the lost node's claim has run out.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import ray
import ray.exceptions

from plum_jax.studies.commands import Commands
from plum_jax.studies.launch_local import stop_signals
from plum_jax.studies.outcomes import Outcome
from plum_jax.studies.progress import LiveTable
from plum_jax.studies.results import PlannedCell, StudyFiles
from plum_jax.studies.worker import Worker, WorkerSettings, needs_forecast


@dataclasses.dataclass(frozen=True)
class Ray:
    """One task a cell; a cell uses one node.

    Attributes:
      address: of the cluster; None: RAY_ADDRESS, else a Ray of this machine alone. "auto" where one must be running.
      cpus, gpus: of a cell.
      resources: others that a cell takes, by Ray's names, e.g. {"TPU": 4} for the chips of a host.
      max_retries: of a task whose node or worker process is lost; a cell that fails is `settings.retries`' matter.
      runtime_env: Ray's, e.g. {"env_vars": {...}}.
      settings: timeout, retries, lease and the like.
    """

    address: str | None = None
    cpus: float = 1
    gpus: float = 0
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)
    max_retries: int = 3
    runtime_env: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: WorkerSettings = WorkerSettings()

    def launch(self, files: StudyFiles, commands: Commands, table: LiveTable) -> None:
        """Submits every cell that is not done and may run, and waits; after SIGTERM or Ctrl-C running cells save.

        Raises:
          SystemExit: 143 or 130, after a signal.
        """
        if not ray.is_initialized():
            ray.init(address=self.address, runtime_env=dict(self.runtime_env) or None)
        files = StudyFiles(files.directory.resolve())
        with stop_signals() as received:
            while not received and (cells := self._cells_to_run(files)):
                self._run(cells, files, commands, table, received)
        if received:
            table.say(f"stopped by {received[0].name}; running cells have saved, the same command goes on")
            raise SystemExit(128 + received[0])
        files.collect()
        table.say(f"rows: {files.results}")
        waiting = sum(files.row(cell.name) is None for cell in files.planned())
        if waiting:
            table.say(needs_forecast(files, waiting))

    def _cells_to_run(self, files: StudyFiles) -> list[PlannedCell]:
        cells = [cell for cell in files.planned() if files.row(cell.name) is None]
        if self.settings.without_forecast or files.forecast.exists():
            return cells
        return [cell for cell in cells if not cell.held_out]

    def _run(
        self,
        cells: Sequence[PlannedCell],
        files: StudyFiles,
        commands: Commands,
        table: LiveTable,
        received: Sequence[signal.Signals],
    ) -> None:
        task = ray.remote(run_cell_here)
        takes = {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": dict(self.resources)}
        running = {}
        for cell in cells:
            arguments = (str(files.directory), cell.name, commands.cell(cell.name), os.getcwd(), self.settings)
            options = task.options(name=cell.name, max_retries=self.max_retries, **takes)
            running[options.remote(*arguments)] = cell
        while running and not received:
            done, _ = ray.wait(list(running), timeout=0.5)
            for reference in done:
                _require_row(running.pop(reference), reference, files)
                table.cell_done()
            table.tick()
        for reference in running:
            ray.cancel(reference)  # raises KeyboardInterrupt in the task, whose worker lets the cell save
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=self.settings.grace + 10)


def run_cell_here(
    study_dir: str, name: str, command: Sequence[str], working_directory: str, settings: WorkerSettings
) -> str | None:
    """The task: a worker for one cell, on the node that Ray has chosen, with that node's Python."""
    if pathlib.Path(working_directory).exists():
        os.chdir(working_directory)  # relative paths in gin files and flags
    python, *arguments = command
    del python
    return Worker(StudyFiles(study_dir), lambda _: [sys.executable, *arguments], settings).run_one(name)


def _require_row(cell: PlannedCell, reference: Any, files: StudyFiles) -> None:
    """A task that Ray gave up leaves a row too; an error of our own code is raised."""
    try:
        ray.get(reference)
    except ray.exceptions.OutOfMemoryError as error:
        outcome = Outcome("out_of_memory", f"killed by Ray's memory monitor: {str(error).splitlines()[0]}")
        files.write_failure(cell, outcome, attempts=1, wall_seconds=0.0)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
        outcome = Outcome("failed", f"Ray lost the process and gave up: {str(error).splitlines()[0]}")
        files.write_failure(cell, outcome, attempts=1, wall_seconds=0.0)
