"""The whole of it, slowly: real cells by `plum`, workers and cells killed, and rows as of an undisturbed study."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
from fast_compiling import FAST_COMPILING
from test_worker import running, wait_for

from plum_jax.studies.cell_process import signal_group
from plum_jax.studies.results import StudyFiles

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
STUDY = ["--gin_file=gin/corpus/simulator.gin", "--gin_file=tests/studies/tiny_study.gin"]
# What a row says of the circumstances.
CIRCUMSTANCES = {"wall_seconds", "train_seconds", "command", "commit", "machine"}


def plum(job: str, directory: pathlib.Path, *flags: str) -> subprocess.Popen:
    arguments = [f"--gin_file=gin/run/{job}.gin", *STUDY, f"--gin.STUDY_DIR={str(directory)!r}", *flags]
    environment = os.environ | {"XLA_FLAGS": FAST_COMPILING, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, "-m", "plum_jax.run", *arguments], cwd=REPOSITORY, env=environment)


def rows(directory: pathlib.Path) -> dict[str, dict]:
    found = [json.loads(line) for line in StudyFiles(directory).results.read_text().splitlines()]
    return {row["name"]: {k: v for k, v in row.items() if k not in CIRCUMSTANCES} for row in found}


@pytest.mark.slow
def test_a_real_study_whose_workers_and_cells_are_killed_ends_with_the_rows_of_an_undisturbed_one(tmp_path):
    calm, storm = tmp_path / "calm", tmp_path / "storm"
    assert plum("study_plan", calm).wait(600) == 0
    shutil.copytree(calm, storm)
    everything = ["--gin.WITHOUT_FORECAST=True", "--gin.RETRIES=20", "--gin.LEASE=20.0"]
    assert plum("study_run", calm, *everything).wait(900) == 0
    expected = rows(calm)
    assert len(expected) == 4 and {row["status"] for row in expected.values()} == {"finished"}

    files = StudyFiles(storm)
    trained = lambda: list(files.directory.glob("cells/*/train/checkpoints/*"))  # noqa: E731
    workers = [plum("study_run", storm, *everything) for _ in range(2)]
    try:
        wait_for(trained, 300)
        signal_group(wait_for(lambda: running(files), 60)[0][1], signal.SIGKILL)
        pid, _ = wait_for(lambda: running(files), 60)[0]
        lost = next(i for i, worker in enumerate(workers) if worker.pid == pid)
        workers[lost].kill()
        workers[lost].wait()
        workers[lost] = plum("study_run", storm, *everything)
        assert [worker.wait(900) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    assert rows(storm) == expected
