"""What the benchmarks share: medians over interleaved rounds, bounded threads, a description of the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

THREADS = 2  # of either side


def bound_threads() -> None:
    """Keeps this process to `THREADS` cores: XLA has no other bound on its threads. Call it before importing jax."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])


def interleaved(
    sides: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each side in each round, side after side, so that what else the machine does falls on all alike.

    Each side is run once before, uncounted. With `time.process_time` as clock: seconds of processor of all threads, in
    which waiting for a core that is busy does not count.
    """
    for run in sides.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        # Every other round backwards: a side does not always follow the same one.
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            time.sleep(0.02)  # the threads of the side before may still spin
            began = clock()
            sides[name]()
            seconds[name].append(clock() - began)
    return seconds


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return statistics.median(n / d for n, d in zip(numerator, denominator, strict=True))


def machine() -> str:
    """Processor, cores that this process may use, and the load that other processes make, in one line."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"


def rounded(value: object) -> object:
    """Floats to four digits: more are noise."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
