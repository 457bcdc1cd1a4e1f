"""Through the door of `plum`: --profile leaves a trace that Perfetto and TensorBoard read, SIGTERM ends with 143."""

import dataclasses
import gzip
import json
import pathlib

import pytest
import small_run

from plum_jax import run
from plum_jax.training import metrics_log, saved_params

RUN = """
from __gin__ import dynamic_registration
import profiled_job
from plum_jax import run
from plum_jax.training import training_config
run.run:
  job = @profiled_job.train
  model_dir = %MODEL_DIR
profiled_job.train.config = @training_config.TrainingConfig()
training_config.TrainingConfig.steps = 14
"""


@pytest.fixture
def gin_file(tmp_path):
    path = tmp_path / "job.gin"
    path.write_text(RUN)
    return str(path)


def test_profile_traces_the_steps_asked_for_and_makes_no_other_run(gin_file, tmp_path):
    directory = tmp_path / "out"
    run.main([f"--gin_file={gin_file}", f"--gin.MODEL_DIR='{directory}'", "--profile=3"])
    (perfetto,) = (directory / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(perfetto.read_bytes()))["traceEvents"]
    steps = [event["args"]["step_num"] for event in events if event.get("name", "").startswith("train")]
    assert sorted({int(step) for step in steps}) == [6, 7, 8], "the first five are warm-up"
    assert list((directory / "profile" / "plugins" / "profile").rglob("*.xplane.pb")), "what TensorBoard reads"
    row = metrics_log.read_metrics(directory)[-1]
    assert row["step"] == 14 and 0 < row["mfu"] < 1 and 0 <= row["data_wait_share"] <= 1
    assert row["tokens_per_second"] > 0
    # The same run without the flag is this one: it is done.
    before = (directory / "params" / "manifest.json").stat().st_mtime_ns
    run.main([f"--gin_file={gin_file}", f"--gin.MODEL_DIR='{directory}'"])
    assert (directory / "params" / "manifest.json").stat().st_mtime_ns == before
    assert saved_params.load_params(directory / "params")["weights"].shape == (small_run.WIDTH,) * 2


def test_plum_ends_with_143_when_it_was_told_to(gin_file, tmp_path, capsys):
    stop = ["--gin.profiled_job.train.terminated=True", "--gin.training_config.TrainingConfig.evaluation_period=6"]
    with pytest.raises(SystemExit) as stopped:
        run.main([f"--gin_file={gin_file}", f"--gin.MODEL_DIR='{tmp_path}/out'", *stop])
    assert stopped.value.code == 143
    assert "train: stopped by SIGTERM after step 6 of 14, which is saved in" in capsys.readouterr().err


def test_a_run_that_ends_early_still_leaves_a_trace(tmp_path):
    small_run.train(tmp_path, dataclasses.replace(small_run.TRAINING, steps=3, profile_steps=5))
    assert list(pathlib.Path(tmp_path, "profile").rglob("perfetto_trace.json.gz"))


def test_variables_of_a_run_of_several_processes_come_together(gin_file, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(SystemExit, match="plum: expected JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID"):
        run.main([f"--gin_file={gin_file}", "--gin.MODEL_DIR='x'", "--multi_process"])
