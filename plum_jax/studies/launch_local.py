"""Workers of a study on this machine: one or several in one process, the cores shared out among their cells."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from plum_jax.studies.commands import Commands
from plum_jax.studies.progress import LiveTable
from plum_jax.studies.results import StudyFiles
from plum_jax.studies.worker import Worker, WorkerSettings


@dataclasses.dataclass(frozen=True)
class Local:
    """Cells in subprocesses of this machine.

    Attributes:
      workers: cells at a time; each gets its share of the cores where there are as many.
      settings: timeout, retries, lease and the like.
    """

    workers: int = 1
    settings: WorkerSettings = WorkerSettings()

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"expected 1 or more workers, got {self.workers}")

    def launch(self, files: StudyFiles, commands: Commands, table: LiveTable) -> None:
        """Works until no cell is left, none is allowed, or SIGTERM or Ctrl-C comes: then cells save, and it exits.

        Raises:
          SystemExit: 143 or 130, after a signal.
        """
        files.planned()  # no plan is better said once
        stop = threading.Event()
        advice: set[str] = set()
        errors: list[BaseException] = []
        with stop_signals(stop) as received:
            workers = [
                Worker(files, commands.cell, self.settings, stop=stop, cores=cores, done=table.cell_done, say=table.say)
                for cores in shares_of_cores(self.workers)
            ]
            threads = [
                threading.Thread(target=_work, args=(worker, stop, advice, errors), name=f"worker {number}")
                for number, worker in enumerate(workers)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():  # a join without a limit hears no signals
                    thread.join(0.2)
                    table.tick()
        if errors:
            raise errors[0]
        files.collect()
        for text in [*(advice - {""}), f"rows: {files.results}"]:
            table.say(text)
        if received:
            table.say(f"stopped by {received[0].name}; running cells have saved, the same command goes on")
            raise SystemExit(128 + received[0])


def shares_of_cores(workers: int) -> list[list[int] | None]:
    """This process's cores in as many parts of equal size, neighbours together; None for all: there are too few."""
    if not hasattr(os, "sched_getaffinity") or workers == 1:
        return [None] * workers
    cores = sorted(os.sched_getaffinity(0))
    each = len(cores) // workers
    return [cores[i * each : (i + 1) * each] if each else None for i in range(workers)]


def _work(worker: Worker, stop: threading.Event, advice: set[str], errors: list[BaseException]) -> None:
    """A thread: an error in one worker stops all."""
    try:
        advice.add(worker.work())
    except BaseException as error:
        errors.append(error)
        stop.set()


@contextlib.contextmanager
def stop_signals(stop: threading.Event | None = None) -> Iterator[list[signal.Signals]]:
    """Tells which of SIGTERM and Ctrl-C came, and sets `stop`; a second Ctrl-C is Python's own."""
    received: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def receive(number: int, frame: Any) -> None:
        del frame
        received.append(signal.Signals(number))
        if stop is not None:
            stop.set()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
