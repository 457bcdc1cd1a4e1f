"""A study whose cells need no JAX: `python stub_study.py cell STUDY_DIR NAME` runs one, `... work STUDY_DIR` a worker.

A cell takes `steps` steps of `step_seconds` and saves a checkpoint after each; its row follows from its name alone.
`cell["does"]` says how it goes wrong.
"""

import hashlib
import json
import os
import pathlib
import signal
import sys
import threading
import time


def plan(directory: pathlib.Path, count: int = 4, **cells: dict):
    """Writes a plan of `count` good cells, and those that are named; the study's files."""
    from plum_jax.studies.results import StudyFiles  # not in a cell: importing it takes longer than training

    directory.mkdir(exist_ok=True)
    rows = {f"b00-c{i}-s0": {} for i in range(count)} | cells
    common = {"size": "d", "budget": 1e12, "seed": 0, "held_out": False, "steps": 3}
    write(
        directory / "plan.json", {"study": "stub", "cells": [common | {"cell_id": i, **row} for i, row in rows.items()]}
    )
    return StudyFiles(directory)


class Commands:
    """In the place of `plum_jax.studies.commands.Commands`."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory

    def cell(self, name: str) -> list[str]:
        return [sys.executable, __file__, "cell", str(self.directory), name]


def write(path: pathlib.Path, value) -> None:
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(value))
    aside.replace(path)


def run_cell(directory: pathlib.Path, name: str) -> None:
    """Trains for `steps` steps from the newest checkpoint. `started.txt` and `steps.txt` tell what was done."""
    cell = next(c for c in json.loads((directory / "plan.json").read_text())["cells"] if c["cell_id"] == name)
    home = directory / "cells" / name
    with (home / "started.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")
    misbehave(cell.get("does", ""), home)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    checkpoint = home / "checkpoint.json"
    done = json.loads(checkpoint.read_text())["step"] if checkpoint.exists() else 0
    for step in range(done + 1, cell["steps"] + 1):
        time.sleep(cell.get("step_seconds", 0.02))
        write(checkpoint, {"step": step})
        with (home / "steps.txt").open("a") as file:
            file.write(f"{step}\n")
        if stopped.is_set():
            raise SystemExit(143)
    loss = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16) / 1e6
    keep = {key: cell[key] for key in ("size", "budget", "seed", "held_out", "steps")}
    write(home / "record.json", {"name": name, "status": "finished", "reason": "", "loss": loss, **keep})


def misbehave(does: str, home: pathlib.Path) -> None:
    if does == "fail":
        raise ValueError("expected 3 levels, got 4")
    if does == "fail_once" and not (home / "failed").exists():
        (home / "failed").touch()
        raise OSError("the disk was away")
    if does == "diverge":
        print("plum: step 7 of x: the loss is nan, the norm of its gradient nan: lower the learning rate")
        raise SystemExit(1)
    if does == "memory_error":
        raise MemoryError("cannot allocate 9 GiB")
    if does == "xla_memory":
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes")
    if does == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if does == "no_record":
        raise SystemExit(0)


def main() -> None:
    role, directory, *rest = sys.argv[1:]
    directory = pathlib.Path(directory)
    if role == "cell":
        run_cell(directory, rest[0])
        return
    from plum_jax.studies.launch_local import Local
    from plum_jax.studies.progress import LiveTable
    from plum_jax.studies.results import StudyFiles
    from plum_jax.studies.worker import WorkerSettings

    settings = WorkerSettings(**json.loads(rest[0])) if rest else WorkerSettings()
    Local(1, settings).launch(StudyFiles(directory), Commands(directory), LiveTable(StudyFiles(directory)))


if __name__ == "__main__":
    main()
