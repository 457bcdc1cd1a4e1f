"""Commands that run a study's cells on TPUs of Google Cloud: by xpk on GKE, or on TPU VMs. Printed, never run.

What is printed is a shell script: read it, then pipe it to bash. It has a command for each cell that is not done, or
one for each of some workers, which share the cells out by claims. Flags are those of xpk as of June 2026
(github.com/AI-Hypercomputer/xpk, src/xpk/parser/workload.py) and of the gcloud reference for `compute tpus
queued-resources`.

A cell that dies with its pod leaves no row (there is no worker to write it): the next script has it again.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Sequence

from plum_jax import artifact
from plum_jax.studies.commands import Commands
from plum_jax.studies.progress import LiveTable
from plum_jax.studies.results import StudyFiles
from plum_jax.studies.worker import needs_forecast

LONGEST_NAME = 40  # xpk's rule for a workload


@dataclasses.dataclass(frozen=True)
class Jobs:
    """What is to run, wherever.

    Attributes:
      workers: so many workers, each on a slice of one host, with a study directory on NFS; 0: a job for each cell.
      hosts: of a job, in all its slices; more than one run a cell together (--multi_process).
      python: of the machines.
      without_forecast: held-out cells, too, though nothing has been forecast.
    """

    workers: int = 0
    hosts: int = 1
    python: str = "python3"
    without_forecast: bool = False

    def __post_init__(self) -> None:
        if self.workers and self.hosts > 1:
            raise ValueError(
                f"{self.workers} workers on {self.hosts} hosts each: the cell of a worker runs on one host; set "
                "workers to 0 for a job for each cell, or hosts to 1"
            )

    def commands(self, files: StudyFiles, commands: Commands) -> dict[str, list[str]]:
        """Name (`name_of_job`) -> argv."""
        study = str(files.planned()[0].facts["study"])
        if self.workers:
            found = {f"{study}-worker-{i}": commands.worker() for i in range(self.workers)}
        else:
            cells = [cell for cell in files.planned() if files.row(cell.name) is None]
            allowed = [c for c in cells if not c.held_out or self.without_forecast or files.forecast.exists()]
            several = ["--multi_process"] if self.hosts > 1 else []
            found = {f"{study}-{cell.name}": [*commands.cell(cell.name), *several] for cell in allowed}
        return {name_of_job(name): [self.python, *argv[1:]] for name, argv in found.items()}

    def left_out(self, files: StudyFiles) -> list[str]:
        """A comment on cells that wait for the forecast."""
        held_out = sum(cell.held_out and files.row(cell.name) is None for cell in files.planned())
        if not held_out or self.without_forecast or files.forecast.exists():
            return []
        return [f"# {needs_forecast(files, held_out)}"]


@dataclasses.dataclass(frozen=True)
class Xpk:
    """A GKE workload for each job, in a cluster that xpk has made.

    Attributes:
      cluster, project, zone: of Google Cloud.
      tpu_type, num_slices: of a job, e.g. "v6e-256"; `jobs.hosts` must say how many hosts that is.
      docker_image: with plum_jax installed and STUDY_DIR in sight (gs://, or NFS by `xpk storage`).
      priority: very-low, low, medium, high or very-high.
      max_restarts: of a job that was preempted or lost a host (exit codes 42 and 127 to 255): it goes on from its
        checkpoint.
      grace: seconds that a preempted job has to save a checkpoint.
      options: further ones, e.g. ("--spot", "--storage=studies").
      jobs: what runs.
    """

    cluster: str
    project: str
    zone: str
    tpu_type: str
    docker_image: str
    num_slices: int = 1
    priority: str = "medium"
    max_restarts: int = 10
    grace: int = 120
    options: Sequence[str] = ()
    jobs: Jobs = Jobs()

    def script(self, files: StudyFiles, commands: Commands) -> str:
        """One line a job."""
        lines = [self._create(name, argv) for name, argv in self.jobs.commands(files, commands).items()]
        return "\n".join([*lines, *self.jobs.left_out(files)])

    def launch(self, files: StudyFiles, commands: Commands, table: LiveTable) -> None:
        """Prints the script."""
        table.say(self.script(files, commands))

    def _create(self, name: str, argv: Sequence[str]) -> str:
        # xpk runs the command in a subshell and sends SIGTERM to that: `exec` puts Python in its place.
        arguments = {
            "--workload": name,
            "--cluster": self.cluster,
            "--project": self.project,
            "--zone": self.zone,
            "--tpu-type": self.tpu_type,
            "--num-slices": self.num_slices,
            "--docker-image": self.docker_image,
            "--priority": self.priority,
            "--max-restarts": self.max_restarts,
            "--termination-grace-period-seconds": self.grace,
            "--command": f"exec {shlex.join(argv)}",
        }
        flags = [f"{flag}={value}" for flag, value in arguments.items()]
        return shlex.join(["xpk", "workload", "create", *flags, *self.options])


@dataclasses.dataclass(frozen=True)
class TpuVm:
    """A queued resource for each job: asked for, waited for, started on all its hosts; and how to give it back.

    Attributes:
      project, zone: of Google Cloud.
      accelerator_type, runtime_version: of a slice, e.g. "v6e-8" and "v2-alpha-tpuv6e".
      prepare: shell command that runs first on every host, e.g. one that mounts STUDY_DIR and installs plum_jax.
      options: further ones for the request, e.g. ("--spot",).
      jobs: what runs.
    """

    project: str
    zone: str
    accelerator_type: str
    runtime_version: str
    prepare: str = "true"
    options: Sequence[str] = ()
    jobs: Jobs = Jobs()

    def script(self, files: StudyFiles, commands: Commands) -> str:
        """Three parts: requests, starts (each when its slice is ACTIVE), and requests to delete, as comments."""
        jobs = self.jobs.commands(files, commands)
        deletes = [f"# {self._gcloud('delete', name, '--force', '--async')}" for name in jobs]
        parts = [
            *[self._request(name) for name in jobs],
            "# Each of the following when its queued resource is ACTIVE:",
            *[f"# {self._gcloud('describe', name, '--format=value(state.state)')}" for name in jobs],
            *[self._start(name, argv) for name, argv in jobs.items()],
            "# When they are done (gin/run/study_status.gin):",
            *deletes,
            *self.jobs.left_out(files),
        ]
        return "\n".join(parts)

    def launch(self, files: StudyFiles, commands: Commands, table: LiveTable) -> None:
        """Prints the script."""
        table.say(self.script(files, commands))

    def _request(self, name: str) -> str:
        what = {"accelerator-type": self.accelerator_type, "runtime-version": self.runtime_version, "node-id": name}
        return self._gcloud("create", name, *(f"--{flag}={value}" for flag, value in what.items()), *self.options)

    def _start(self, name: str, argv: Sequence[str]) -> str:
        # The job outlives the connection: nohup, and none of its streams is the terminal's.
        command = f"{self.prepare} && (nohup {shlex.join(argv)} > {name}.log 2>&1 < /dev/null &)"
        return self._gcloud("ssh", name, "--node=all", "--worker=all", f"--command={command}")

    def _gcloud(self, what: str, name: str, *flags: str) -> str:
        place = [f"--project={self.project}", f"--zone={self.zone}"]
        return shlex.join(["gcloud", "compute", "tpus", "queued-resources", what, name, *place, *flags])


def name_of_job(name: str) -> str:
    """As Kubernetes and Google Cloud want it: small letters, digits, hyphens; told apart where it was changed."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    plain = plain if plain[:1].isalpha() else f"s{plain}"
    if plain == name and len(plain) <= LONGEST_NAME:
        return plain
    mark = artifact.fingerprint(name)[:6]
    return f"{plain[: LONGEST_NAME - 7].rstrip('-')}-{mark}"
