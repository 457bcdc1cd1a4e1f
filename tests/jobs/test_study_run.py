import dataclasses

import pytest

from gin import config as gin
from plum_jax import run
from plum_jax.artifact import write_json
from plum_jax.evaluation.scalable import DataFacts
from plum_jax.jobs.study_run import run_study
from plum_jax.studies.commands import Commands
from plum_jax.studies.launch_local import Local
from plum_jax.studies.places import StudyError
from plum_jax.studies.plan import cell_fingerprint
from plum_jax.studies.rules import PowerRule
from plum_jax.studies.solve import cells_of
from tests.studies.small_study import study

FILES = ["gin/run/study_run.gin", "gin/corpus/simulator.gin", "gin/study/simulated.gin"]
STATED = study(batch_size=PowerRule(base=2))
POD_MACROS = ("PROJECT", "ZONE", "ACCELERATOR_TYPE", "RUNTIME_VERSION")
POD = ["--gin_file=gin/launcher/tpu_vm.gin", *(f"--gin.{name}='x'" for name in POD_MACROS)]


@pytest.fixture(autouse=True)
def clear_gin():
    yield
    gin.clear_config()


class Launcher:
    """Notes what it is to launch."""

    def launch(self, files, commands, table):
        self.files, self.commands = files, commands


@pytest.fixture
def planned(tmp_path):
    data = DataFacts(vocab_size=350, length=64, unique_tokens=3000, fill=0.5)
    cells = [
        {"cell_id": cell.cell_id, "held_out": cell.held_out, "fingerprint": cell_fingerprint(STATED, cell)}
        for cell in cells_of(STATED, data)
    ]
    write_json(tmp_path / "plan.json", {"study": "small", "data": dataclasses.asdict(data), "cells": cells})
    return tmp_path


def test_the_study_of_the_plan_is_launched_and_no_other(planned, tmp_path):
    launcher = Launcher()
    run_study(str(planned), STATED, launcher, ["python", "-m", "plum_jax.run"])
    assert launcher.files.directory == planned
    assert launcher.commands.cell("a")[-1] == "--gin.CELL='a'"
    with pytest.raises(StudyError, match=r"another study: 4 cells differ, the first is b00-d008x1-s0"):
        run_study(str(planned), dataclasses.replace(STATED, learning_rate=PowerRule(base=2e-2)), launcher, [])
    with pytest.raises(StudyError, match="there is no plan at .*study_plan.gin"):
        run_study(str(tmp_path / "elsewhere"), STATED, launcher, [])


def test_a_worker_s_command_with_a_cell_behind_it_runs_that_cell(monkeypatch, tmp_path):
    """What `plum` makes of the command that a worker starts: the job of one cell, in the cell's directory."""
    arguments = [*(f"--gin_file={file}" for file in FILES), f"--gin.STUDY_DIR={str(tmp_path)!r}", "--gin.WORKERS=2"]
    monkeypatch.setattr(run, "_arguments", arguments)
    for launcher in ([], POD):
        command = Commands(tuple([*run.own_command(), *launcher])).cell("b00-d008x2-s0-lr1e+09")
        files, bindings, *_ = run._parse_arguments(command[3:])
        run.configure(files, bindings)
        assert gin.query_parameter("plum_jax.run.run.job").selector == "studies.run_cell"
        cell_directory = gin.get_configurable("plum_jax.studies.records.cell_directory")()
        assert cell_directory == str(tmp_path / "cells" / "b00-d008x2-s0-lr1e+09")


def test_a_worker_of_a_pod_works_on_its_own_machine(monkeypatch, tmp_path):
    arguments = [*(f"--gin_file={file}" for file in FILES), *POD, f"--gin.STUDY_DIR={str(tmp_path)!r}"]
    monkeypatch.setattr(run, "_arguments", arguments)
    files, bindings, *_ = run._parse_arguments(Commands(tuple(run.own_command())).worker()[3:])
    run.configure(files, bindings)
    assert gin.query_parameter("LAUNCHER/gin.macro.value").scoped_configurable_fn() == Local()
