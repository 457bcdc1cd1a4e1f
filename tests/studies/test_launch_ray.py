import json
import os
import pathlib
import signal
import threading
import time
from unittest import mock

import pytest
import stub_study

from plum_jax.studies.claims import Claims
from plum_jax.studies.progress import LiveTable
from plum_jax.studies.worker import WorkerSettings

ray = pytest.importorskip("ray", reason="ray is not installed (pip install 'plum_jax[ray]')")
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster():
    """A real Ray of this machine with two processors."""
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    settings = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "300"}
    with mock.patch.dict(os.environ, PYTHONPATH=paths, **settings):
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=80 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
        )
        yield
        ray.shutdown()


def launch(files, **changes):
    from plum_jax.studies.launch_ray import Ray

    settings = WorkerSettings(grace=5.0, poll=0.1, lease=30.0)
    Ray(settings=settings, **changes).launch(files, stub_study.Commands(files.directory), LiveTable(files))
    return {row["name"]: row for row in map(json.loads, files.results.read_text().splitlines())}


def test_every_cell_runs_once_on_the_cluster_and_lost_processes_lose_nothing(cluster, tmp_path, capsys):
    files = stub_study.plan(
        tmp_path, 1, fails={"does": "fail"}, killed={"step_seconds": 0.5, "steps": 4}, held={"held_out": True}
    )
    kill = KillWorkerOnce(files, "killed")
    kill.start()
    rows = launch(files)
    kill.join()
    assert {name: row["status"] for name, row in rows.items()} == {
        "b00-c0-s0": "finished",
        "fails": "failed",
        "killed": "finished",
    }
    assert kill.done and len(Claims(files.claims).chain("killed")) == 2
    steps = [int(line) for line in (files.cell("killed") / "steps.txt").read_text().split()]
    assert steps == sorted(set(steps)) and steps[-1] == 4
    assert "1 held-out cells wait" in capsys.readouterr().out
    files.forecast.write_text("{}")
    assert launch(files)["held"]["status"] == "finished"
    assert len((files.cell("b00-c0-s0") / "started.txt").read_text().splitlines()) == 1


class KillWorkerOnce:
    """Kills the Ray process that holds a cell, when the cell has made a step."""

    def __init__(self, files, name):
        self.files, self.name, self.done = files, name, False
        self.thread = threading.Thread(target=self._run)
        self.start, self.join = self.thread.start, self.thread.join

    def _run(self):
        end = time.monotonic() + 60
        while time.monotonic() < end and not self.done:
            time.sleep(0.02)
            if (self.files.cell(self.name) / "checkpoint.json").exists():
                (link,) = Claims(self.files.claims).chain(self.name)
                os.kill(link.facts["pid"], signal.SIGKILL)
                self.done = True


def test_after_sigterm_cells_on_the_cluster_save_and_are_free(cluster, tmp_path):
    files = stub_study.plan(tmp_path, 0, long={"step_seconds": 0.3, "steps": 4})

    def stop():
        end = time.monotonic() + 60
        while time.monotonic() < end and not (files.cell("long") / "started.txt").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(SystemExit) as stopped:
        launch(files)
    thread.join()
    assert stopped.value.code == 143
    assert not (files.cell("long") / "record.json").exists() and Claims(files.claims).is_free("long")
    assert launch(files)["long"]["status"] == "finished"
    assert (files.cell("long") / "steps.txt").read_text().split() == ["1", "2", "3", "4"]
