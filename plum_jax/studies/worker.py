"""A worker: takes the cells of a study one after the other, runs each in a process of its own, and sees to its row.

Any number of workers share a study's directory, on one machine or on many. A worker may be killed at any moment: its
cell is taken over by another when the claim has run out, and goes on from its newest checkpoint.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Sequence

from plum_jax.studies.cell_process import CellProcess, StillRunning, signal_group
from plum_jax.studies.claims import Claim, Claims, machine_identity, process_identity
from plum_jax.studies.outcomes import Outcome, classify, memory_kills
from plum_jax.studies.results import PlannedCell, StudyFiles


@dataclasses.dataclass(frozen=True)
class WorkerSettings:
    """How a worker goes about it. Times in seconds.

    Attributes:
      timeout: of one attempt at a cell; then it is a row "timed_out". None: no limit.
      retries: further attempts at a cell that failed or was killed from outside; then it is a row "failed".
      lease: after which a cell of a worker that is gone is taken over; on the same machine that happens at once.
      grace: that a cell has to save its checkpoint when the worker is told to stop.
      poll: between looks at the claims while others hold all that is left.
      without_forecast: run held-out cells though nothing has been forecast; their scores are then no test.
      stay: wait while others hold the last cells, for they may be killed; else end when nothing is free.
    """

    timeout: float | None = None
    retries: int = 1
    lease: float = 120.0
    grace: float = 60.0
    poll: float = 2.0
    without_forecast: bool = False
    stay: bool = True


class Worker:
    """One worker.

    Args:
      files: of the study.
      command: cell's name -> argv that runs it and leaves its record.json.
      settings: as above.
      stop: set from outside (a signal) to end: the running cell saves, and is free for others.
      cores: for the cells' processes; None: all.
      done: called after each cell.
      say: called with lines for the user.
    """

    def __init__(
        self,
        files: StudyFiles,
        command: Callable[[str], Sequence[str]],
        settings: WorkerSettings,
        *,
        stop: threading.Event | None = None,
        cores: Sequence[int] | None = None,
        done: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = print,
    ):
        self._files, self._command, self._settings = files, command, settings
        self._stop = stop or threading.Event()
        self._cores, self._done, self._say = cores, done, say
        self._claims = Claims(files.claims, settings.lease)
        self._rows_seen: set[str] = set()

    def work(self) -> str:
        """Runs cells in the plan's order until none is left, none is allowed, or `stop` is set; what is to be done."""
        while not self._stop.is_set():
            waiting = [cell for cell in self._files.planned() if not self._is_done(cell.name)]
            allowed = [cell for cell in waiting if not cell.held_out or self._may_run_held_out()]
            if not allowed:
                return needs_forecast(self._files, len(waiting)) if waiting else ""
            if not self._run_first_free(allowed) and not self._settings.stay:
                break
        return ""

    def run_one(self, name: str) -> str | None:
        """Runs this cell, and again if it may be tried again; waits while another has it. Its status; None: stopped."""
        cells = [cell for cell in self._files.planned() if cell.name == name]
        if not cells:
            raise ValueError(f"the plan of {self._files.directory} has no cell {name}")
        while (row := self._files.row(name, self._say)) is None and not self._stop.is_set():
            self._run_first_free(cells)
        return None if row is None else row["status"]

    def _is_done(self, name: str) -> bool:
        """Whether it has its row; a row that has been seen once is not read again."""
        if name not in self._rows_seen and self._files.row(name, self._say) is not None:
            self._rows_seen.add(name)
        return name in self._rows_seen

    def _may_run_held_out(self) -> bool:
        return self._settings.without_forecast or self._files.forecast.exists()

    def _run_first_free(self, cells: Sequence[PlannedCell]) -> bool:
        """One attempt at the first cell that nobody has; False after a while in which there was none."""
        claim = self._claims.take_first([cell.name for cell in cells])
        if claim is None:
            self._stop.wait(self._settings.poll)
            return False
        self._hold(next(cell for cell in cells if cell.name == claim.cell), claim)
        return True

    def _hold(self, cell: PlannedCell, claim: Claim) -> None:
        """An attempt under a claim, which ends whatever happens."""
        ending = "released"
        try:
            # It may have been done between the look at its record and the claim.
            ending = "finished" if self._files.row(cell.name, self._say) is not None else self._attempt(cell, claim)
        finally:
            claim.end(ending)
        self._files.collect()
        self._done()

    def _attempt(self, cell: PlannedCell, claim: Claim) -> str:
        """Runs the cell's process to its end; how the claim is to end."""
        start, kills = time.monotonic(), memory_kills()
        process = self._start(cell, claim)
        if process is None:
            self._stop.wait(self._settings.poll)
            return "released: another process of the cell is still alive"
        self._say(f"{cell.name}: runs (attempt {claim.number}, log: {process.log})")
        outcome: Outcome | None = None
        try:
            group = process.process_group
            claim.note(process_group=group, group_leader=process_identity(group))
            outcome = self._watch(process, claim, start, kills)
        except BaseException:
            process.stop(self._settings.grace)
            raise
        process.kill()  # it has ended; what it has started may not
        row = self._files.row(cell.name, self._say)
        seconds = time.monotonic() - start
        if row is not None:
            self._say(f"{cell.name}: {row['status']} after {seconds:.0f} s {row.get('reason', '')}".rstrip())
            return row["status"]
        if outcome is None:
            return "released"
        if claim.lost:
            return "lost"
        failures = sum((link.outcome or "").startswith("failed") for link in self._claims.chain(cell.name))
        if outcome.may_retry and failures < self._settings.retries:
            self._say(f"{cell.name}: {outcome.reason}; will be tried again")
            return f"failed: {outcome.reason}"
        self._say(f"{cell.name}: {outcome.status} after {seconds:.0f} s: {outcome.reason}")
        self._files.write_failure(cell, outcome, claim.number, seconds)
        return outcome.status

    def _start(self, cell: PlannedCell, claim: Claim) -> CellProcess | None:
        """The cell's process; None if one of an earlier worker lives that was not to be ended from here."""
        directory, command = self._files.cell(cell.name), self._command(cell.name)
        try:
            return CellProcess(command, directory, self._cores)
        except StillRunning:
            pass
        noted = [link.facts for link in self._claims.chain(cell.name)[:-1] if link.facts]
        here = [facts for facts in noted if facts["machine"] == machine_identity() and facts.get("group_leader")]
        # A number of long ago may be another process's by now.
        groups = [f["process_group"] for f in here if process_identity(f["process_group"]) == f["group_leader"]]
        for number, seconds in ((signal.SIGTERM, self._settings.grace), (signal.SIGKILL, 5.0)):
            for group in groups:
                signal_group(group, number)
            end = time.monotonic() + seconds
            while time.monotonic() < end and not self._stop.wait(0.1):
                try:
                    return CellProcess(command, directory, self._cores)
                except StillRunning:
                    continue
        return None

    def _watch(self, process: CellProcess, claim: Claim, start: float, kills: dict[str, int]) -> Outcome | None:
        """Waits for the end; None: the process was stopped for a reason that says nothing of the cell."""
        timeout = self._settings.timeout
        while (code := process.wait(0.2)) is None:
            if claim.lost:
                self._say(f"{claim.cell}: another worker may have it now (no heartbeat for a lease); stopped here")
                process.kill()
                return None
            if self._stop.is_set():
                process.stop(self._settings.grace)
                return None
            if timeout is not None and time.monotonic() - start > timeout:
                process.stop(self._settings.grace)
                return Outcome("timed_out", f"not done after {timeout:g} s, the timeout of a cell")
        # Whoever ends a whole machine sends SIGTERM to all; this worker may be the last to hear of it.
        if code in (-signal.SIGTERM, 128 + signal.SIGTERM) and self._stop.wait(1.0):
            return None
        return classify(code, process.log_tail(), kills, memory_kills())


def needs_forecast(files: StudyFiles, count: int) -> str:
    """What to do when only held-out cells are left."""
    return (
        f"{count} held-out cells wait for {files.forecast}: seal the forecast by gin/run/study_forecast.gin with "
        f"--gin.STUDY_DIR={str(files.directory)!r}, then run this again; or run them without one "
        "(WITHOUT_FORECAST = True)"
    )
