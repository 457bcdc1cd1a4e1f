"""Two real processes (`jax.distributed`, CPU collectives): train, stop, go on bit for bit; go on in one process."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import process_of_many
import pytest
from fast_compiling import FAST_COMPILING

from plum_jax.feeds import token_records
from plum_jax.training import metrics_log, saved_params
from plum_jax.training.mesh import MeshShape
from plum_jax.training.speed import SPEED_METRICS


def rows(directory):
    found = metrics_log.read_metrics(directory)
    return [{name: value for name, value in row.items() if name not in SPEED_METRICS} for row in found]


def start_two(directory, records, seconds=0.0):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {FAST_COMPILING}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, process_of_many.__file__, *map(str, (directory, records, port, process, 2, seconds))],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]


def end(processes, expected):
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
        raise AssertionError("\n".join(process.communicate()[1][-3000:] for process in processes)) from None
    assert [process.returncode for process in processes] == [expected, expected], "\n".join(e[-3000:] for e in errors)
    return errors


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    directory = tmp_path_factory.mktemp("records")
    rng = np.random.default_rng(0)
    for name, count in (("a", 50), ("b", 21)):
        lengths = rng.integers(2, 10, count)
        pairs = [(rng.integers(1, process_of_many.VOCAB, n), np.ones(n)) for n in lengths]
        token_records.write_task(directory / name, pairs, name=name, config={}, inputs={})
    token_records.write_manifest(directory, rates={"a": 0.7, "b": 0.3}, config={}, inputs={})
    return directory


@pytest.fixture(scope="module")
def stopped(records, tmp_path_factory):
    """A run of two processes of which one was told to stop: both have saved the same step."""
    directory = tmp_path_factory.mktemp("stopped")
    processes = start_two(directory, records, seconds=0.1)
    while all(process.poll() is None for process in processes) and len(rows(directory)) < 4:
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    first, second = end(processes, 143)
    assert "stopped by SIGTERM after step" in first and "stopped by SIGTERM" not in second
    assert not (directory / "params").exists()
    return directory


def test_two_processes_go_on_bit_for_bit(records, stopped, tmp_path):
    end(start_two(tmp_path / "whole", records), 0)
    shutil.copytree(stopped, tmp_path / "stopped")
    end(start_two(tmp_path / "stopped", records), 0)
    params = [saved_params.load_params(tmp_path / name / "params") for name in ("whole", "stopped")]
    np.testing.assert_array_equal(params[0]["embedding"], params[1]["embedding"])
    assert rows(tmp_path / "whole") == rows(tmp_path / "stopped")
    assert len(rows(tmp_path / "whole")) == 24 + 2  # one process writes; two evaluations


def test_one_process_goes_on_with_the_same_batches_on_another_mesh(records, stopped, tmp_path):
    process_of_many.train(tmp_path / "whole", records, MeshShape(data=8))
    shutil.copytree(stopped, tmp_path / "stopped")
    process_of_many.train(tmp_path / "stopped", records, MeshShape(data=1, fsdp=4, tensor=2))
    whole, resumed = rows(tmp_path / "whole"), rows(tmp_path / "stopped")
    assert [(row["step"], row.get("tokens")) for row in whole] == [(row["step"], row.get("tokens")) for row in resumed]
    losses = [[row["loss"] for row in run if "loss" in row] for run in (whole, resumed)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    params = [saved_params.load_params(tmp_path / name / "params") for name in ("whole", "stopped")]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *params)
