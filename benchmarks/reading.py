"""Reading a log of Parquet parts into a Corpus, beside a bare Polars scan and sort of the same files.

    .venv/bin/python benchmarks/reading.py [--quick]

20 million events (--quick: 5 million) of 400,000 users and 100,000 items in 16 parts, in no order of time, are made in
a temporary directory. Each side reads them in a process of its own, threads bounded alike: `Table(...).read()`, which
makes indexes of ids, checks every row and puts events in order; and `scan_parquet(...).sort("user", "time")`,
collected. Peak memory is the process's. The last line is JSON: `events_per_second`, `polars_scan_ratio` (our seconds
over Polars'), `json_fields_speedup` (six fields of 300,000 JSON lines, looked up one by one, over decoded once a line).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import polars as pl
import timing

PARTS = 16


def write_parts(directory: pathlib.Path, events: int) -> None:
    """Parts whose ids are text, as logs have them."""
    rng = np.random.default_rng(0)
    for part in range(PARTS):
        count = events // PARTS
        users = rng.integers(0, 400_000, count)
        items = (100_000 * rng.random(count) ** 2).astype(np.int64)
        frame = pl.DataFrame({"user": users, "item": items, "at": 1_600_000_000_000 + rng.integers(0, 10**11, count)})
        text = [pl.format("user-{}", "user").alias("user"), pl.format("item-{}", "item").alias("item")]
        frame.with_columns(*text).write_parquet(directory / f"part-{part:05d}.parquet")


def one_side(side: str, directory: str) -> None:
    """Reads, and prints seconds and peak memory."""
    began = time.perf_counter()
    if side == "table":
        from plum_jax.corpus.sources.table import Table

        began = time.perf_counter()
        events = Table(directory, user_id="user", item_id="item", time="at", time_unit="ms").read().num_events
    else:
        events = pl.scan_parquet(f"{directory}/*.parquet").sort("user", "at").collect(engine="streaming").height
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak, "events": events}))


def json_fields_speedup(lines: int = 300_000, repeats: int = 3) -> float:
    """Median seconds of six fields of JSON lines, each looked up by itself, over those of one decoding a line."""
    from plum_jax.corpus.sources.json_fields import json_fields

    rng = np.random.default_rng(0)
    users, items, times = rng.integers(0, 50_000, lines), rng.integers(0, 10**9, lines), rng.integers(0, 10**9, lines)
    rest = {"rating": 4.5, "verified": True, "helpful": 3, "text": "a review of some words " * 4}
    made = [
        json.dumps({"user_id": f"u{user}", "item_id": f"B{item}", "time": time_of_event, **rest})
        for user, item, time_of_event in zip(users.tolist(), items.tolist(), times.tolist(), strict=True)
    ]
    frame = pl.LazyFrame({"line": made})
    fields = {name: name for name in ("user_id", "item_id", "time", "rating", "verified", "helpful")}

    def seconds(one_by_one: tuple[str, ...]) -> float:
        began = time.perf_counter()
        json_fields(frame, "line", fields, one_by_one).drop("line").collect(engine="streaming")
        return time.perf_counter() - began

    pairs = [(seconds(tuple(fields)), seconds(())) for _ in range(repeats)]
    return statistics.median(looked_up for looked_up, _ in pairs) / statistics.median(once for _, once in pairs)


def main() -> None:
    """Both sides, one after the other, several times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--side", choices=("table", "polars"))
    parser.add_argument("--directory")
    asked = parser.parse_args()
    if asked.side:
        one_side(asked.side, asked.directory)
        return
    told = {"machine": timing.machine(), "polars": pl.__version__, "numpy": np.__version__}
    print(told["machine"])
    events, repeats = (5_000_000, 3) if asked.quick else (20_000_000, 3)
    found: dict[str, list[dict[str, float]]] = {"table": [], "polars": []}
    with tempfile.TemporaryDirectory() as directory:
        write_parts(pathlib.Path(directory), events)
        for _ in range(repeats):
            for side, runs in found.items():
                command = [sys.executable, __file__, "--side", side, "--directory", directory]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs.append(json.loads(done.stdout.splitlines()[-1]))
    seconds = {side: statistics.median(run["seconds"] for run in runs) for side, runs in found.items()}
    for side, runs in found.items():
        peak = max(run["peak_gib"] for run in runs)
        print(f"{side:8s} {seconds[side]:7.2f} s   peak {peak:.2f} GiB   {runs[0]['events']:,.0f} events")
    ratios = {
        **told,
        "events_per_second": round(found["table"][0]["events"] / seconds["table"]),
        "polars_scan_ratio": round(seconds["table"] / seconds["polars"], 3),
        "events": events,
        "peak_gib": round(max(run["peak_gib"] for run in found["table"]), 2),
        "json_fields_speedup": round(json_fields_speedup(), 2),
    }
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
