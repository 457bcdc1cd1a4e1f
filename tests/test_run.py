"""The command line's own promises: help, misspelt macros, missing files, bad values."""

import pathlib

import pytest

from plum_jax import run

RUN = """
from __gin__ import dynamic_registration
import builtins
from plum_jax import run
run.run:
  job = @builtins.print
  model_dir = %MODEL_DIR
"""


@pytest.fixture
def gin_file(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "job.gin"
    path.write_text(RUN)
    return str(path)


def _error(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        run.main(arguments)
    return f"{stop.value}{capsys.readouterr().err}"


def test_a_job_runs_and_its_configuration_is_saved(gin_file, tmp_path, capsys):
    run.main([f"--gin_file={gin_file}", f"--gin.MODEL_DIR='{tmp_path}/out'"])
    assert capsys.readouterr().out.strip() == f"{tmp_path}/out"
    saved = tmp_path / "out" / "config.gin"
    assert "run.job = @builtins.print" in saved.read_text()
    run.main([f"--gin_file={saved}"])  # the saved configuration is itself a run
    assert capsys.readouterr().out.strip() == f"{tmp_path}/out"


def test_a_macro_that_nothing_reads_is_an_error(gin_file, capsys):
    message = _error([f"--gin_file={gin_file}", "--gin.MODEL_DIR='x'", "--gin.MODEL_DIRR='y'"], capsys)
    assert "nothing reads the macro MODEL_DIRR: did you mean MODEL_DIR?" in message


def test_a_macro_that_is_not_set_is_an_error(gin_file, capsys):
    assert "the macro MODEL_DIR is read but not set" in _error([f"--gin_file={gin_file}"], capsys)


def test_a_file_that_does_not_exist_names_near_ones(capsys):
    message = _error(["--gin_file=gin/model/cpu_tyni.gin"], capsys)
    assert "there is no gin file gin/model/cpu_tyni.gin: did you mean gin/model/cpu_tiny.gin" in message


def test_values_that_gin_cannot_read_say_so(gin_file, capsys):
    message = _error([f"--gin_file={gin_file}", "--gin.MODEL_DIR=/tmp/no quotes"], capsys)
    assert "cannot be read" in message and "Traceback" not in message


def test_a_misspelt_parameter_is_named(gin_file, tmp_path, capsys):
    extra = tmp_path / "extra.gin"
    extra.write_text(
        "from __gin__ import dynamic_registration\nfrom plum_jax.model import config\n"
        "config.DecoderConfig.num_layerz = 3\n"
    )
    message = _error([f"--gin_file={gin_file}", f"--gin_file={extra}", "--gin.MODEL_DIR='x'"], capsys)
    assert "num_layerz" in message and "extra.gin" in message


def test_other_flags_are_refused(gin_file, capsys):
    message = _error([f"--gin_file={gin_file}", "--steps=3"], capsys)
    assert "expected --gin_file=FILE or --gin.NAME=VALUE, got '--steps=3'" in message


def test_a_setting_with_a_space_is_no_value_of_the_flag_before_it():
    files, bindings, *_ = run._parse_arguments(["--gin_file=a.gin", "--profile", "--gin.KS=(1, 5)", "--gin.A='b=c'"])
    assert files == ["a.gin"]
    assert bindings == ["KS = (1, 5)", "A = 'b=c'", f"{run.PROFILE} = 5"]


def test_help_is_worth_reading(capsys):
    with pytest.raises(SystemExit):
        run.main(["--help"])
    text = capsys.readouterr().out
    assert "gin/run/pipeline.gin" in text and "MODEL_DIR" in text and "overrides" in text


def test_files_of_the_repository_are_found_from_anywhere(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    run.configure(["experiments/plum_amazon/beauty.gin"], ["MODEL_DIR = 'x'", "DATA_DIR = 'y'"])
    assert "Path not found" not in caplog.text
