"""Claims: which worker runs which cell of a study, agreed through files in a directory that all workers see.

A claim is a chain of files, `<cell>.1.json`, `<cell>.2.json`...; the last one counts. A cell is taken by making the
next file of its chain with O_EXCL, so of any number of workers exactly one has it. Nothing is renamed and nothing
deleted: a worker that was suspended writes only into its own, superseded file.

- The holder writes a new heartbeat into its file every `lease / 4` seconds, and "ended" when it lets go.
- Others may take the next link when the last one has ended, or when they themselves have seen it unchanged for its
  lease. No clocks of two hosts are compared. On the machine of the holder a dead process is noticed at once.
- A holder that could not write for a lease, or sees a later link, has lost the claim (`Claim.lost`), even before
  anybody takes it: it must stop what it runs.

The directory must be local or NFS (version 3 or later: O_EXCL and `fsync` work through the server). Object stores
(gs://) have neither exclusive creation through a plain file interface nor writing in place: give each cell a job of its
own there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

# A link is rewritten in place, so it always has this many bytes.
LINK_BYTES = 2048


@dataclasses.dataclass(frozen=True)
class Link:
    """One link of a cell's chain, as a worker sees it.

    Attributes:
      number: from 1.
      content: bytes of the file; they change with every heartbeat.
      facts: what the file says; None: unreadable (half-written, or somebody wrote into it).
    """

    number: int
    content: bytes
    facts: dict[str, Any] | None

    @property
    def outcome(self) -> str | None:
        """What the holder said when it let go; None: it has not."""
        return None if self.facts is None else self.facts.get("outcome")


class Claims:
    """The claims of one worker (or of several threads, each with its own object) on a study's cells.

    Args:
      directory: `STUDY_DIR/claims`.
      lease: seconds without a heartbeat after which others may take a cell.
    """

    def __init__(self, directory: str | os.PathLike[str], lease: float = 120.0):
        if "://" in os.fspath(directory):
            raise ValueError(f"claims need a local or NFS directory, got {directory}: run one job a cell there")
        if lease <= 0:
            raise ValueError(f"a lease is a positive number of seconds, got {lease}")
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.lease = lease
        self._seen: dict[str, tuple[bytes, float]] = {}

    def chain(self, cell: str) -> list[Link]:
        """All links of a cell, first to last."""
        return [self._read(cell, number) for number in self._numbers().get(cell, [])]

    def is_free(self, cell: str) -> bool:
        """Whether `take` may succeed. Every call is also a look at the heartbeat: call it every few seconds."""
        return self._may_follow(cell, self._numbers().get(cell, []))

    def take(self, cell: str) -> Claim | None:
        """The claim, with its heartbeat beating; None: another worker has the cell, or was faster."""
        return self.take_first([cell])

    def take_first(self, cells: Sequence[str]) -> Claim | None:
        """The claim of the first cell that can be had; None: others have all."""
        numbers = self._numbers()
        for cell in cells:
            taken = numbers.get(cell, [])
            if not self._may_follow(cell, taken):
                continue
            number = taken[-1] + 1 if taken else 1
            with contextlib.suppress(FileExistsError):
                flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
                return Claim(self, cell, number, os.open(self._path(cell, number), flags, 0o666))
        return None

    def _numbers(self) -> dict[str, list[int]]:
        """Cell -> numbers of its links, rising; from one look at the directory."""
        found: dict[str, list[int]] = {}
        for name in os.listdir(self.directory):
            cell, _, number = name.removesuffix(".json").rpartition(".")
            if cell and number.isdecimal() and name.endswith(".json"):
                found.setdefault(cell, []).append(int(number))
        return {cell: sorted(numbers) for cell, numbers in found.items()}

    def _may_follow(self, cell: str, numbers: Sequence[int]) -> bool:
        if not numbers:
            return True
        last, now = self._read(cell, numbers[-1]), boot_clock()
        if last.outcome is not None or holder_is_dead(last.facts):
            return True
        content, since = self._seen.get(cell, (None, now))
        if content != last.content:
            self._seen[cell] = (last.content, now)
            return False
        lease = self.lease if last.facts is None else last.facts["lease"]
        return now - since > lease

    def _path(self, cell: str, number: int) -> pathlib.Path:
        return self.directory / f"{cell}.{number}.json"

    def _read(self, cell: str, number: int) -> Link:
        content = self._path(cell, number).read_bytes()
        try:
            facts = json.loads(content)
            readable = isinstance(facts, dict) and float(facts["lease"]) > 0
        except (ValueError, KeyError, TypeError):
            readable = False
        return Link(number, content, facts if readable else None)


class Claim:
    """A cell that this process may run; `Claims.take` makes it. A thread keeps its heartbeat."""

    def __init__(self, claims: Claims, cell: str, number: int, descriptor: int):
        self.cell, self.number = cell, number
        self._claims, self._descriptor = claims, descriptor
        self._facts: dict[str, Any] = {
            "owner": f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": process_identity(os.getpid()),
            "machine": machine_identity(),
            "lease": claims.lease,
            "taken": time.time(),
            "beats": 0,
        }
        self._lock = threading.Lock()
        self._lost, self._ended = False, threading.Event()
        self._valid_until = boot_clock() + claims.lease
        self._write()
        self._thread = threading.Thread(target=self._beat_on, name=f"heartbeat of {cell}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether this process must stop running the cell, because another one may run it."""
        if not self._lost and not self._ended.is_set():
            superseded = self._claims._path(self.cell, self.number + 1).exists()
            self._lost = superseded or boot_clock() > self._valid_until
        return self._lost

    def note(self, **facts: Any) -> None:
        """Adds facts to the link, for whoever takes the cell over."""
        with self._lock:
            self._facts.update(facts)
        self._write()

    def end(self, outcome: str) -> None:
        """Lets go; `outcome` (e.g. "finished", "released", "failed: ...") is for whoever takes the cell next."""
        self._ended.set()
        self._thread.join()
        if not self._lost:
            # Where that cannot be written any more, the claim runs out by itself.
            with contextlib.suppress(OSError):
                self.note(outcome=outcome.encode("ascii", "replace").decode()[:400])
        os.close(self._descriptor)

    def _beat_on(self) -> None:
        while not self._ended.wait(self._claims.lease / 4) and not self.lost:
            # A file system that is away for a moment is no reason to stop; `_valid_until` says when it is.
            with contextlib.suppress(OSError):
                self._write()

    def _write(self) -> None:
        start = boot_clock()
        with self._lock:
            self._facts["beats"] += 1
            self._facts["heartbeat"] = time.time()
            content = json.dumps(self._facts).encode()
            if len(content) > LINK_BYTES:
                raise ValueError(f"a claim has at most {LINK_BYTES} bytes, got {len(content)}: {content!r}")
            os.pwrite(self._descriptor, content.ljust(LINK_BYTES - 1) + b"\n", 0)
            os.fsync(self._descriptor)
        self._valid_until = start + self._claims.lease


def boot_clock() -> float:
    """Seconds that also pass while the machine is suspended, where the system has such a clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def machine_identity() -> str | None:
    """This boot and its space of process ids, in which a pid means the same process; None where it is not known."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def process_identity(pid: int) -> str | None:
    """Tells a process from a later one of the same pid; None: there is none, or it is dead."""
    try:
        # After the name in brackets: state, ..., and as the 20th field the start time.
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{pid}@{fields[19]}"


def holder_is_dead(facts: dict[str, Any] | None) -> bool:
    """Whether it is known, without waiting, that the holder's process is no more."""
    if facts is None or facts.get("machine") is None or facts.get("machine") != machine_identity():
        return False
    identity = facts.get("process")
    return identity is not None and process_identity(int(facts["pid"])) != identity
