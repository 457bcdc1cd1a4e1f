"""What became of a cell's process: read from its exit status, its log, and the kernel's count of memory kills."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import signal
from typing import Literal

Status = Literal["finished", "diverged", "out_of_memory", "timed_out", "failed"]

DIVERGED = re.compile(r"FloatingPointError|the loss is (nan|-?inf)|norm of its gradient (nan|-?inf)", re.IGNORECASE)
OUT_OF_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|MemoryError\b|std::bad_alloc|CUDA_ERROR_OUT_OF_MEMORY")
# "plum: ..." is how the command says what a user can mend; else the last line of a traceback.
ERROR_LINE = re.compile(r"^(plum: .+|[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Exhausted)\b.*)$")
LONGEST_REASON = 500


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of an attempt.

    Attributes:
      status: as in a row.
      reason: one line with the evidence; "" when finished.
      may_retry: whether the same again may end otherwise.
    """

    status: Status
    reason: str
    may_retry: bool = False


def memory_kills() -> dict[str, int]:
    """How often the kernel has killed for want of memory: file -> count, of the machine and of our control group."""
    files = {"/proc/vmstat": pathlib.Path("/proc/vmstat")}
    try:
        group = re.search(r"^0::(.*)$", pathlib.Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    except OSError:
        group = None
    if group:
        name = f"/sys/fs/cgroup{group[1].rstrip('/')}/memory.events"
        files[name] = pathlib.Path(name)
    counts = {}
    for name, path in files.items():
        try:
            found = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
        except OSError:
            continue
        if found:
            counts[name] = int(found[1])
    return counts


def classify(code: int, log_tail: str, kills_before: dict[str, int], kills_after: dict[str, int]) -> Outcome:
    """The outcome of a process that left no record and that its worker did not stop.

    Args:
      code: exit status as of `subprocess`: minus the signal's number.
      log_tail: the end of its output.
      kills_before, kills_after: `memory_kills()` around it.
    """
    code = 128 - code if code > 128 else code  # a shell's way of telling a signal
    exhausted = _last(OUT_OF_MEMORY, log_tail)
    if exhausted:
        return Outcome("out_of_memory", _reason(exhausted))
    if code == -signal.SIGKILL:
        risen = [name for name, count in kills_after.items() if count > kills_before.get(name, count)]
        if risen:
            counts = ", ".join(f"{name}: oom_kill {kills_before[name]} -> {kills_after[name]}" for name in risen)
            return Outcome("out_of_memory", f"killed by SIGKILL while the kernel killed for want of memory ({counts})")
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        return Outcome("failed", f"killed by {name}, not by its worker, and no sign of memory shortage", may_retry=True)
    diverged = _last(DIVERGED, log_tail)
    if diverged:
        return Outcome("diverged", _reason(diverged))
    if code == 0:
        return Outcome("failed", "the process ended without an error, but left no record.json", may_retry=True)
    lines = [line for line in log_tail.splitlines() if line.strip()]
    errors = [line for line in lines if ERROR_LINE.match(line)]
    last = (errors or lines or ["no output"])[-1]
    return Outcome("failed", _reason(f"exit status {code}: {last.strip()}"), may_retry=True)


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = [line for line in text.splitlines() if pattern.search(line)]
    return found[-1].strip() if found else None


def _reason(line: str) -> str:
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 3]}..."
