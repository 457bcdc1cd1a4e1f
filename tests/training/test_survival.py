"""Signals, kills, damaged checkpoints, full disks, bad losses: nothing is lost but what is said to be."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run
from small_run import TRAINING, Feed, train

from plum_jax.training import checkpoints, metrics_log, saved_params
from plum_jax.training.interruption import Stopped
from plum_jax.training.speed import SPEED_METRICS

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def rows(directory):
    """All rows, without what the clock says."""
    found = metrics_log.read_metrics(directory)
    return [{name: value for name, value in row.items() if name not in SPEED_METRICS} for row in found]


def assert_same_run(one, other):
    a, b = (saved_params.load_params(directory / "params") for directory in (one, other))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert rows(one) == rows(other)


def start(directory, seconds=0.0, rename=0):
    command = [sys.executable, small_run.__file__, str(directory), str(seconds), str(rename)]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def saved_steps(directory):
    folder = directory / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []


def wait_for_rows(process, directory, number):
    deadline = time.monotonic() + 120
    while process.poll() is None and len(rows(directory)) < number and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[1][-3000:]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted")
    train(directory)
    return directory


def kill_at_random(directory, seed):
    """Starts the run where it was, and kills it up to 0.3 s after its first row: it is always writing a checkpoint."""
    process = start(directory, seconds=0.01)
    wait_for_rows(process, directory, len(rows(directory)) + 1)
    time.sleep(random.Random(seed).uniform(0, 0.3))
    saved = saved_steps(directory)
    process.kill()
    process.communicate()
    return max(saved, default=0)


def test_kills_at_random_moments_change_nothing(uninterrupted, tmp_path):
    for seed in range(3):
        saved = kill_at_random(tmp_path, seed)
        assert saved <= max(saved_steps(tmp_path), default=0), "a kill lost a checkpoint"
    train(tmp_path)
    assert_same_run(uninterrupted, tmp_path)


@pytest.mark.slow
def test_twenty_kills_change_nothing(uninterrupted, tmp_path):
    for seed in range(20):
        directory = tmp_path / str(seed // 4)
        kill_at_random(directory, 100 + seed)
        if seed % 4 == 3:
            train(directory)
            assert_same_run(uninterrupted, directory)


# Of the 79 renames of a run: the metrics' (1), a first checkpoint's parts, checksums and itself (2 to 6), some of later
# ones, and the last one's and the parameters' (76 to 79).
RENAMES = [79, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3, 4, 5, 6, 10, 11, 40, 76, 77, 78))]


@pytest.mark.parametrize("rename", RENAMES)
def test_a_kill_at_a_rename_changes_nothing(uninterrupted, tmp_path, rename):
    process = start(tmp_path, rename=rename)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL, errors[-3000:]
    train(tmp_path)
    assert_same_run(uninterrupted, tmp_path)


def test_sigterm_saves_the_step_it_is_at_and_the_same_command_goes_on(uninterrupted, tmp_path):
    process = start(tmp_path, seconds=0.02)
    wait_for_rows(process, tmp_path, 5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors[-3000:]
    (line,) = [line for line in errors.splitlines() if "stopped by SIGTERM" in line]
    assert line.endswith("the same command goes on from there")
    assert f"after step {saved_steps(tmp_path)[-1]} of 60" in line
    train(tmp_path)
    assert_same_run(uninterrupted, tmp_path)


def stop_at(batch, number=signal.SIGTERM):
    """A feed that sends this process a signal while it makes a batch."""

    class Signalling(small_run.Walk):
        def __next__(self):
            if self.number == batch:
                os.kill(os.getpid(), number)
            return super().__next__()

    class SignallingFeed(Feed):
        def make_iterator(self):
            return Signalling(self)

    return SignallingFeed()


@pytest.fixture
def python_hears_ctrl_c():
    """A shell starts background processes with SIGINT ignored, and then Python installs no handler of its own."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_hears_ctrl_c")
def test_ctrl_c_saves_too_and_handlers_are_put_back(uninterrupted, tmp_path):
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Stopped, match="stopped by SIGINT after step") as stopped:
        train(tmp_path, feed=stop_at(8, signal.SIGINT))
    assert stopped.value.code == 130
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert not [thread for thread in threading.enumerate() if thread.name == "feed"]
    train(tmp_path)
    assert_same_run(uninterrupted, tmp_path)


def test_a_request_to_stop_does_not_wait_for_an_evaluation(tmp_path):
    config = dataclasses.replace(TRAINING, steps=6, evaluation_period=3, select_by="test/size")
    calls = []

    def size(params):
        calls.append(float(np.abs(params["weights"]).sum()))
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the evaluation went on")
        return {"size": calls[-1]}

    with pytest.raises(Stopped, match="after step 3 of 6"):
        train(tmp_path / "stopped", config, evaluators={"test": size})
    train(tmp_path / "stopped", config, evaluators={"test": size})
    assert calls[0] == calls[1], "the evaluation that was broken off is done again, of the same parameters"
    train(tmp_path / "whole", config, evaluators={"test": size})
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


SHORT = dataclasses.replace(TRAINING, steps=16)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    directory = tmp_path_factory.mktemp("short")
    train(directory, SHORT)
    return directory


@pytest.fixture
def broken_off(tmp_path):
    """A run of `SHORT` that ended in the middle, with the checkpoints of two steps."""

    class Power(BaseException):
        pass

    class Cut(small_run.Walk):
        def __next__(self):
            if self.number == 14:
                raise Power
            return super().__next__()

    class CutFeed(Feed):
        def make_iterator(self):
            return Cut(self)

    with pytest.raises(Power):
        train(tmp_path, SHORT, feed=CutFeed())
    assert saved_steps(tmp_path) == [8, 12]
    return tmp_path


def largest_file(step):
    return max((path for path in (step / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip_a_bit(step):
    path = largest_file(step)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    return rf"{path.name} is not what was written \(CRC-32\)"


def cut_short(step):
    path = largest_file(step)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    return f"{path.name} has {size - 1} bytes, {size} were written"


def remove_metadata(step):
    (step / "state" / "_METADATA").unlink()
    return "state/_METADATA is missing"


def remove_progress(step):
    (step / "progress" / "metadata").unlink()
    return "progress/metadata is missing"


def remove_checksums(step):
    (step / "checksums.json").unlink()
    return "checksums.json is missing: it was not written to its end"


def empty_checksums(step):
    (step / "checksums.json").write_text("")
    return "checksums.json cannot be read"


@pytest.mark.parametrize(
    "damage", [flip_a_bit, cut_short, remove_metadata, remove_progress, remove_checksums, empty_checksums]
)
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_used(short, broken_off, damage):
    message = damage(broken_off / "checkpoints" / "12")
    with pytest.warns(UserWarning, match=rf"the checkpoint .*checkpoints/12 is refused: .*{message}. The one before"):
        train(broken_off, SHORT)
    assert_same_run(short, broken_off)
    assert (broken_off / "refused_checkpoints" / "12").exists()


def test_when_no_checkpoint_is_whole_one_error_names_them_all(broken_off):
    for step in ("8", "12"):
        flip_a_bit(broken_off / "checkpoints" / step)
    for _ in range(2):  # nothing was moved
        with pytest.raises(checkpoints.CheckpointsDamaged, match=r"none of the checkpoints in .*12: .*; 8: .*delete"):
            train(broken_off, SHORT)


def test_a_loss_that_is_not_finite_names_its_step_and_leaves_its_batch(tmp_path):
    feed = Feed(bad_step=14)
    with pytest.raises(FloatingPointError, match=r"step 14 of .*: the loss is nan.*in .*bad_batch"):
        train(tmp_path, feed=feed)
    iterator = feed.make_iterator()
    for _ in range(14):
        batch = next(iterator)
    saved = dict(np.load(tmp_path / "bad_batch" / "batch.npz"))
    jax.tree.map(np.testing.assert_array_equal, saved, batch)
    facts = json.loads((tmp_path / "bad_batch" / "step.json").read_text())
    assert (facts["step"], facts["last_checkpoint"], facts["state_after_step"]) == (14, 12, 15)
    assert facts["parameters_not_finite"] == ["['bias']", "['weights']"]
    assert facts["recent"]["13"]["loss"] != "nan" and facts["recent"]["14"]["loss"] == "nan"
    assert saved_steps(tmp_path) == [8, 12], "no state after the bad step is saved"


def test_a_gradient_that_is_not_finite_is_noticed_before_its_checkpoint(tmp_path):
    def objective(params, batch, rng):
        loss, weight, metrics = small_run.objective(params, batch, rng)
        # sqrt(0) has no gradient: the loss is fine at the step that ruins the parameters.
        return loss + jnp.where(batch["x"].sum() > 0, 0.0, jnp.sqrt(0.0 * params["bias"][0])), weight, metrics

    with pytest.raises(FloatingPointError, match=r"the norm of its gradient nan"):
        train(tmp_path, objective=objective)
    facts = json.loads((tmp_path / "bad_batch" / "step.json").read_text())
    assert facts["recent"][str(facts["step"])]["loss"] != "nan"
    assert max(saved_steps(tmp_path), default=0) < facts["step"]


def test_a_feed_that_ends_says_so(tmp_path):
    class Short(small_run.Walk):
        def __next__(self):
            if self.number == 5:
                raise StopIteration
            return super().__next__()

    class ShortFeed(Feed):
        def make_iterator(self):
            return Short(self)

    with pytest.raises(ValueError, match="train: the feed ended after 5 batches, expected 60"):
        train(tmp_path, feed=ShortFeed())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk):
    """Takes all its room but a few blocks; remove the file to make room again."""
    filler = disk / "filler"
    room = os.statvfs(disk)
    filler.write_bytes(b"0" * (room.f_bavail * room.f_frsize - 8192))
    return filler


def test_a_full_disk_ends_the_run_with_the_checkpoints_before_it_whole(uninterrupted, small_disk):
    fillers = []

    class Filling(small_run.Walk):
        def __next__(self):
            while self.number == 26 and saved_steps(small_disk) != [20, 24]:
                time.sleep(0.01)
            if self.number == 26:
                fillers.append(fill(small_disk))
            return super().__next__()

    class FillingFeed(Feed):
        def make_iterator(self):
            return Filling(self)

    with pytest.raises(OSError, match="No space left on device.*make room"):
        train(small_disk, feed=FillingFeed())
    assert saved_steps(small_disk)[-1] == 24
    fillers[0].unlink()
    train(small_disk)
    assert_same_run(uninterrupted, small_disk)


def test_metrics_that_find_no_room_say_so(small_disk):
    log = metrics_log.MetricsLog(small_disk, 0)
    fill(small_disk)
    with pytest.raises(OSError, match="the metrics of step .*disk.*No space left on device.*make room"):  # noqa: SIM117
        with log:
            for step in range(10000):
                log.write(step, {"loss": 1.0})
