"""What the benchmarks share: medians over interleaved rounds, bounded threads, a description of the machine."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

THREADS = 2  # of either side


def run(
    doc: str | None,
    versions: Sequence[str],
    *sections: str | Callable[[bool], Mapping[str, object]],
    environment: Mapping[str, str] | None = None,
) -> None:
    """A benchmark's command, `[--quick]`: its sections one after the other, and their keys in one line of JSON.

    Args:
      doc: what `--help` says.
      versions: distributions whose versions are told.
      sections: modules beside this one with `measure(quick)`, which are imported in their turn, so that what is set
        here is read when their libraries are loaded; or functions `(quick) -> keys`.
      environment: variables besides `JAX_PLATFORMS`.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="at most 50 s")
    quick = parser.parse_args().quick
    os.environ.update({"JAX_PLATFORMS": "cpu", **(environment or {})})
    bound_threads()
    result = told(versions)
    for section in sections:
        measure = importlib.import_module(section).measure if isinstance(section, str) else section
        result |= measure(quick)
    print(json.dumps(rounded(result)))


def told(versions: Sequence[str]) -> dict[str, object]:
    """The machine, versions of distributions, and the bound on threads; the first two are printed."""
    found = {name: metadata.version(name) for name in versions}
    print(f"{machine()}; {', '.join(f'{name} {version}' for name, version in found.items())}")
    return {"machine": machine(), **found, "threads": THREADS}


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


# Of a processor, what decides how fast matrix products and reductions are: which of these it has is told.
FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "asimd", "sve")


def machine() -> str:
    """Processor and its features, cores that this process may use, and the load that others make, in one line."""
    told = _told_by_the_kernel()
    model = told.get("model name") or platform.processor() or platform.machine()
    flags = told.get("flags", told.get("Features", "")).split()
    features = " ".join(name for name in FEATURES if name in flags) or "features unknown"
    cores = len(os.sched_getaffinity(0))
    return f"{model} ({features}), {cores} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"


def _told_by_the_kernel() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; none where there is no such file."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = (line.partition(":") for line in file)
            told: dict[str, str] = {}
            for name, _, value in lines:
                told.setdefault(name.strip(), value.strip())
            return told
    except OSError:
        return {}


def rounded(value: object) -> object:
    """Floats to four digits: more are noise."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
