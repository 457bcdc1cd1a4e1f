import dataclasses
import fcntl
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
import stub_study

from plum_jax.studies.cell_process import LOCK, signal_group
from plum_jax.studies.claims import Claims, process_identity
from plum_jax.studies.launch_local import Local, shares_of_cores
from plum_jax.studies.progress import LiveTable
from plum_jax.studies.results import StudyFiles
from plum_jax.studies.worker import Worker, WorkerSettings

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
QUICK = WorkerSettings(grace=0.5, poll=0.05)


def rows_of(files) -> dict[str, dict]:
    rows = [json.loads(line) for line in files.results.read_text().splitlines()]
    assert [row["name"] for row in rows] == sorted({row["name"] for row in rows})
    return {row["name"]: row for row in rows}


def run(files, settings=QUICK, workers=1, **changes):
    settings = dataclasses.replace(settings, **changes)
    Local(workers, settings).launch(files, stub_study.Commands(files.directory), LiveTable(files))
    return rows_of(files)


def started(files, name: str) -> int:
    path = files.cell(name) / "started.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def start_worker(files, **settings) -> subprocess.Popen:
    values = {"grace": 5.0, "poll": 0.05, "retries": 100, **settings}
    return subprocess.Popen(
        [sys.executable, stub_study.__file__, "work", str(files.directory), json.dumps(values)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        process_group=0,
    )


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return value


def test_failures_are_rows_with_their_reasons_and_the_study_goes_on(tmp_path):
    files = stub_study.plan(
        tmp_path,
        1,
        fails={"does": "fail"},
        recovers={"does": "fail_once"},
        diverges={"does": "diverge"},
        python_memory={"does": "memory_error"},
        xla_memory={"does": "xla_memory"},
        dies={"does": "die"},
        silent={"does": "no_record"},
    )
    rows = run(files, workers=2)
    found = {name: (row["status"], row["reason"], row.get("attempts")) for name, row in rows.items()}
    assert found.pop("fails") == ("failed", "exit status 1: ValueError: expected 3 levels, got 4", 2)
    assert found.pop("python_memory") == ("out_of_memory", "MemoryError: cannot allocate 9 GiB", 1)
    status, reason, attempts = found.pop("xla_memory")
    assert (status, attempts) == ("out_of_memory", 1) and "RESOURCE_EXHAUSTED" in reason
    status, reason, attempts = found.pop("diverges")
    assert (status, attempts) == ("diverged", 1) and "the loss is nan" in reason
    status, reason, attempts = found.pop("dies")
    assert (status, attempts) == ("failed", 2) and "killed by SIGKILL" in reason
    status, reason, attempts = found.pop("silent")
    assert (status, attempts) == ("failed", 2) and "no record.json" in reason
    assert {status for status, _, _ in found.values()} == {"finished"} and set(found) == {"recovers", "b00-c0-s0"}
    assert (
        rows["fails"]["budget"] == 1e12 and rows["fails"]["study"] == "stub" and "loss" not in rows["fails"]
    )  # missing, not 0


def test_a_cell_that_hangs_is_a_row_and_the_next_one_runs(tmp_path):
    files = stub_study.plan(tmp_path, 0, hangs={"does": "hang"}, after={"does": "fail"})
    rows = run(files, timeout=3.0, retries=0)
    assert (rows["hangs"]["status"], rows["hangs"]["attempts"]) == ("timed_out", 1)
    assert rows["hangs"]["reason"] == "not done after 3 s, the timeout of a cell"
    assert rows["hangs"]["wall_seconds"] < 60 and rows["after"]["status"] in ("failed", "timed_out")


def test_held_out_cells_wait_for_the_forecast(tmp_path, capsys):
    files = stub_study.plan(tmp_path, 1, held={"held_out": True})
    assert set(run(files)) == {"b00-c0-s0"}
    message = capsys.readouterr().out
    assert "1 held-out cells wait for" in message and "forecast.json" in message and "WITHOUT_FORECAST" in message
    files.forecast.write_text("{}")
    assert set(run(files)) == {"b00-c0-s0", "held"}
    assert started(files, "b00-c0-s0") == 1


def test_held_out_cells_run_without_a_forecast_when_told_to(tmp_path):
    files = stub_study.plan(tmp_path, 0, held={"held_out": True})
    assert set(run(files, without_forecast=True)) == {"held"}


def test_killing_workers_and_cells_at_random_changes_no_record(tmp_path):
    cells = {f"b01-c{i}-s0": {"step_seconds": 0.2, "steps": 5} for i in range(6)}
    expected = run(stub_study.plan(tmp_path / "calm", 0, **{name: {"steps": 5} for name in cells}), workers=2)
    files = stub_study.plan(tmp_path / "storm", 0, **cells)
    dice = random.Random(5)
    kills = dice.sample(["worker", "cell"] * 3, 6)
    workers = [start_worker(files) for _ in range(2)]
    try:
        for kind in kills:
            time.sleep(dice.uniform(0, 0.3))
            held = wait_for(lambda: running(files))
            pid, group = dice.choice(held)
            if kind == "cell":
                signal_group(group, signal.SIGKILL)
            else:
                i = next(i for i, worker in enumerate(workers) if worker.pid == pid)
                workers[i].kill()
                workers[i].wait()
                workers[i] = start_worker(files)
        for worker in workers:
            assert worker.wait(60) == 0
    finally:
        for worker in workers:
            worker.kill()
    assert rows_of(files) == expected
    for name in expected:
        # No step twice: a cell went on from its checkpoint. A kill may fall between a checkpoint and the note of it.
        steps = [int(line) for line in (files.cell(name) / "steps.txt").read_text().split()]
        assert steps == sorted(set(steps)), (name, steps)


def running(files) -> list[tuple[int, int]]:
    """Process of the worker and process group of the cell, of all cells that run now."""
    paths = files.claims.glob("*.json") if files.claims.exists() else []
    claims = [facts for facts in map(read, paths) if "process_group" in facts and "outcome" not in facts]
    return [
        (c["pid"], c["process_group"])
        for c in claims
        if process_identity(c["pid"]) and process_identity(c["process_group"])
    ]


def read(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return {}


def test_a_cell_dies_with_its_worker(tmp_path):
    files = stub_study.plan(tmp_path, 0, long={"step_seconds": 30})
    worker = start_worker(files)
    try:
        pid = int(wait_for(lambda: started(files, "long") and (files.cell("long") / "started.txt").read_text()))
    finally:
        worker.kill()
        worker.wait()
    wait_for(lambda: process_identity(pid) is None, 5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_worker_lets_its_cell_save_and_frees_it(tmp_path, number, code):
    files = stub_study.plan(tmp_path, 0, long={"step_seconds": 0.3, "steps": 3})
    worker = start_worker(files, lease=1000.0)
    try:
        wait_for(lambda: started(files, "long"))
        worker.send_signal(number)
        assert worker.wait(20) == code
    finally:
        worker.kill()
    saved = json.loads((files.cell("long") / "checkpoint.json").read_text())["step"]
    assert saved < 3 and not (files.cell("long") / "record.json").exists()
    assert Claims(files.claims).is_free("long")
    assert run(files)["long"]["status"] == "finished"
    steps = (files.cell("long") / "steps.txt").read_text().split()
    assert steps == ["1", "2", "3"]


def test_a_suspended_worker_loses_its_cell_and_nothing_is_done_twice(tmp_path):
    """SIGSTOP to the worker alone: its cell runs on unseen, and must end before the next one begins."""
    files = stub_study.plan(tmp_path, 0, long={"step_seconds": 0.4, "steps": 6})
    sleeper = start_worker(files, lease=0.8)
    try:
        pid = int(wait_for(lambda: started(files, "long") and (files.cell("long") / "started.txt").read_text()))
        sleeper.send_signal(signal.SIGSTOP)
        rows = run(files, lease=0.8, retries=0, grace=5.0)
        assert process_identity(pid) is None
        sleeper.send_signal(signal.SIGCONT)
        assert sleeper.wait(20) == 0
    finally:
        sleeper.kill()
    assert rows["long"]["status"] == "finished" and rows_of(files) == rows
    assert started(files, "long") == 2
    steps = [int(line) for line in (files.cell("long") / "steps.txt").read_text().split()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_cell_waits_for_a_process_that_its_worker_knows_nothing_of(tmp_path):
    """As when a machine that shares the directory still runs it: the lock tells, and nothing there can be killed."""
    files = stub_study.plan(tmp_path, 1)
    home = files.cell("b00-c0-s0")
    home.mkdir(parents=True)
    worker = None
    with (home / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            worker = start_worker(files, grace=0.3)
            wait_for(lambda: len(list(files.claims.glob("*.json"))) > 0)
            time.sleep(0.5)
            assert started(files, "b00-c0-s0") == 0
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert worker.wait(60) == 0
        finally:
            if worker:
                worker.kill()
    assert rows_of(files)["b00-c0-s0"]["status"] == "finished" and started(files, "b00-c0-s0") == 1


def test_a_worker_that_lost_its_claim_stops_its_cell_and_writes_no_row(tmp_path):
    files = stub_study.plan(tmp_path, 0, long={"step_seconds": 0.2, "steps": 20})
    stop = threading.Event()
    worker = Worker(files, stub_study.Commands(tmp_path).cell, QUICK, stop=stop)
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        pid = int(wait_for(lambda: started(files, "long") and (files.cell("long") / "started.txt").read_text()))
        (files.claims / "long.2.json").write_text("taken by another")
        wait_for(lambda: process_identity(pid) is None)
    finally:
        stop.set()
        thread.join()
    assert not (files.cell("long") / "record.json").exists() and started(files, "long") == 1


def test_an_unreadable_record_is_put_beside_and_the_cell_runs_again(tmp_path, capsys):
    files = stub_study.plan(tmp_path, 2)
    run(files)
    path = files.cell("b00-c0-s0") / "record.json"
    path.write_text('{"name": "b00-c0-s0", "sta')
    rows = run(files)
    assert set(rows) == {"b00-c0-s0", "b00-c1-s0"}
    assert [p.read_text() for p in path.parent.glob("record.unreadable-*")] == ['{"name": "b00-c0-s0", "sta']
    assert "the cell will run again" in capsys.readouterr().out
    assert (started(files, "b00-c0-s0"), started(files, "b00-c1-s0")) == (2, 1)


def test_without_a_plan_it_says_what_to_do(tmp_path):
    files = StudyFiles(tmp_path)
    with pytest.raises(ValueError, match=r"no .*plan.json: plan the study first"):
        run(files)
    (tmp_path / "plan.json").write_text('{"cells": [{"cell_id": "a"}]}')
    with pytest.raises(ValueError, match="expected 'cells', each with 'cell_id' and 'held_out'"):
        run(files)


def test_cores_are_shared_out():
    cores = sorted(os.sched_getaffinity(0))
    assert shares_of_cores(1) == [None]
    if len(cores) > 1:
        first, second = shares_of_cores(2)
        assert len(first) == len(second) == len(cores) // 2 and not set(first) & set(second)
    assert shares_of_cores(len(cores) + 1) == [None] * (len(cores) + 1)
