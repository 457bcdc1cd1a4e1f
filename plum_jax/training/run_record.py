"""The run record: what a row of `results.jsonl` says besides its metrics, so that a figure can be made again."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from plum_jax import artifact


def run_record(name: str, metrics: Mapping[str, float], **facts: Any) -> dict[str, Any]:
    """One JSON row: name, metrics, the given facts (seed, config, wall_seconds...), command, commit and machine."""
    return {
        "name": name,
        **metrics,
        **facts,
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
        "commit": commit(),
        "machine": f"{os.cpu_count()} x {platform.machine()}, {jax.devices()[0].platform}",
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def commit() -> str | None:
    """The commit of the code that runs, "+changes" behind it where files differ; None outside a git checkout."""
    here = os.path.dirname(os.path.abspath(__file__))

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", here, *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    head = git("rev-parse", "HEAD")
    if head is None:
        return None
    # Results and logs are written while a study runs; only code and configuration make another program.
    changed = git("status", "--porcelain", "--", ":/plum_jax", ":/tasks", ":/gin", ":/setup.py", ":/requirements")
    return f"{head}+changes" if changed else head


def write_rows(path: epath.PathLike, rows: list[dict[str, Any]]) -> None:
    """Replaces the rows of the same name, data and seed in a `results.jsonl`, keeps the others, appends the new ones.

    Several processes of one machine may write to one local file; on gs:// give each run a file of its own.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = {_identity(row) for row in rows}
    with artifact.alone(path):
        old = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        kept = [row for row in old if _identity(row) not in new]
        artifact.write_text(path, "".join(json.dumps(row) + "\n" for row in [*kept, *rows]))


def write_results(directory: epath.PathLike, rows: list[dict[str, Any]], results_file: epath.PathLike | None) -> None:
    """Rows of a run into its `results.jsonl`, and into a study's file where one is named."""
    write_rows(epath.Path(directory) / "results.jsonl", rows)
    if results_file:
        write_rows(results_file, rows)


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["name"], row.get("data"), row.get("seed")
