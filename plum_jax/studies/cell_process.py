"""The process that runs one cell: its own process group, its own log, dead when its worker is dead, and never two."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

WRAPPER = pathlib.Path(__file__).with_name("exec_with_parent.py")
LOCK = ".running"


class StillRunning(Exception):
    """Another process of this cell is alive: one that an earlier worker started."""


class CellProcess:
    """One attempt at a cell.

    The process holds a lock on `<directory>/.running` (flock, inherited) as long as it or a fork of it lives, so that a
    cell is never trained twice at a time on one machine, nor on several where the file system has locks.

    Args:
      command: argv.
      directory: of the cell; output goes to `log.txt` there, behind what is in it.
      cores: that the process may use; None: all.

    Raises:
      StillRunning: the lock is held.
    """

    def __init__(self, command: Sequence[str], directory: pathlib.Path, cores: Sequence[int] | None = None):
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "log.txt"
        lock = os.open(directory / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            _lock(lock, directory)
            with self.log.open("ab") as log:
                self.log_start = log.tell()
                arguments = [str(os.getpid()), ",".join(map(str, cores)) if cores else "-", *command]
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(WRAPPER), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                    pass_fds=[lock],
                )
        finally:
            os.close(lock)
        self.process_group = self._process.pid

    def wait(self, seconds: float) -> int | None:
        """The exit status (minus the signal's number if one killed it); None: it still runs after so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace: float) -> int:
        """SIGTERM, so that training saves a checkpoint, and SIGKILL after `grace` seconds; the exit status."""
        signal_group(self.process_group, signal.SIGTERM)
        if self.wait(grace) is None:
            signal_group(self.process_group, signal.SIGKILL)
        return self._process.wait()

    def kill(self) -> None:
        """SIGKILL to it and to all that it started."""
        signal_group(self.process_group, signal.SIGKILL)
        self._process.wait()

    def log_tail(self, length: int = 65536) -> str:
        """The end of what this attempt has written."""
        with self.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self.log_start, end - length))
            return log.read().decode(errors="replace")


def signal_group(process_group: int, number: signal.Signals) -> None:
    """Sends a signal to a group that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process_group, number)


def _lock(descriptor: int, directory: pathlib.Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StillRunning(f"a process of an earlier worker still runs in {directory}") from None
    except OSError:
        return  # a file system without locks: claims alone must do
