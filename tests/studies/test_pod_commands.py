import argparse
import re
import shlex
import subprocess

import pytest
import stub_study
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_jax.studies.commands import Commands
from plum_jax.studies.pod_commands import Jobs, TpuVm, Xpk, name_of_job

START = ("/usr/bin/python3.12", "-m", "plum_jax.run", "--gin_file=gin/run/study_run.gin", "--gin.STUDY_DIR='gs://b/s'")
XPK = {"cluster": "c1", "project": "p", "zone": "us-east5-b", "tpu_type": "v6e-256", "docker_image": "gcr.io/p/plum:1"}
VM = {"project": "p", "zone": "us-east5-b", "accelerator_type": "v6e-8", "runtime_version": "v2-alpha-tpuv6e"}


@pytest.fixture
def files(tmp_path):
    return stub_study.plan(tmp_path, 1, **{"b00-d064x3-s0-lr0.5": {}, "held": {"held_out": True}})


def xpk_parser() -> argparse.ArgumentParser:
    """What xpk's own parser asks of these flags."""
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    for flag in ("--workload", "--cluster", "--command", "--tpu-type"):
        parser.add_argument(flag, required=True)
    for flag in ("--project", "--zone", "--docker-image", "--max-restarts", "--termination-grace-period-seconds"):
        parser.add_argument(flag)
    parser.add_argument("--num-slices", type=int)
    parser.add_argument("--priority", choices=["very-low", "low", "medium", "high", "very-high"])
    parser.add_argument("--spot", action="store_true")
    return parser


def test_an_xpk_workload_for_each_cell(files):
    script = Xpk(**XPK, options=("--spot",), jobs=Jobs(hosts=64)).script(files, Commands(START))
    lines = script.splitlines()
    assert len(lines) == 3 and lines[-1].startswith("# 1 held-out cells wait for")
    for line, cell in zip(lines, ["b00-c0-s0", "b00-d064x3-s0-lr0.5"], strict=False):
        assert shlex.split(line)[:3] == ["xpk", "workload", "create"]
        given = xpk_parser().parse_args(shlex.split(line)[3:])
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", given.workload) and len(given.workload) <= 40
        assert (given.cluster, given.tpu_type, given.num_slices, given.spot) == ("c1", "v6e-256", 1, True)
        one_cell = ["--gin_file=gin/run/study_one_cell.gin", f"--gin.CELL='{cell}'", "--multi_process"]
        assert shlex.split(given.command) == ["exec", "python3", *START[1:], *one_cell]
    files.forecast.write_text("{}")
    assert "stub-held" in Xpk(**XPK).script(files, Commands(START))


def test_what_is_done_is_not_printed(files):
    home = files.cell("b00-c0-s0")
    home.mkdir(parents=True)
    (home / "record.json").write_text('{"name": "b00-c0-s0", "status": "finished"}')
    assert "b00-c0-s0" not in Xpk(**XPK).script(files, Commands(START))


def test_workers_run_the_whole_study_with_the_launcher_of_their_machine(files):
    lines = Xpk(**XPK, jobs=Jobs(workers=2)).script(files, Commands(START)).splitlines()
    commands = [xpk_parser().parse_args(shlex.split(line)[3:]).command for line in lines[:2]]
    assert commands == [shlex.join(["exec", "python3", *START[1:], "--gin.LAUNCHER=@launch_local.Local()"])] * 2
    with pytest.raises(ValueError, match="the cell of a worker runs on one host"):
        Jobs(workers=2, hosts=4)


def test_a_tpu_vm_is_asked_for_started_and_given_back(files):
    script = TpuVm(**VM, prepare="cd plum_jax", options=("--spot",)).script(files, Commands(START)).splitlines()
    create, start = script[0], next(line for line in script if " ssh " in line)
    tpus = ["gcloud", "compute", "tpus", "queued-resources"]
    place = ["--project=p", "--zone=us-east5-b"]
    assert shlex.split(create) == [
        *[*tpus, "create", "stub-b00-c0-s0", *place, "--accelerator-type=v6e-8"],
        *["--runtime-version=v2-alpha-tpuv6e", "--node-id=stub-b00-c0-s0", "--spot"],
    ]
    *head, command = shlex.split(start)
    assert head == [*tpus, "ssh", "stub-b00-c0-s0", *place, "--node=all", "--worker=all"]
    assert command.startswith("--command=cd plum_jax && (nohup python3 -m plum_jax.run ")
    assert any(line.startswith("# gcloud") and " delete stub-b00-c0-s0 " in line for line in script)
    for line in script:
        subprocess.run(["bash", "-n", "-c", line], check=True)


values = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=30)


@given(values)
@settings(max_examples=15, deadline=None)
def test_quotes_survive_both_shells(value):
    """What bash makes of the printed line, and a second bash of the command in it, are the arguments that we had."""
    argv = ["printf", "%s\\0", f"--gin.NAME={value!r}"]
    line = Xpk(**XPK)._create("w", argv)
    inner = shlex.split(line)[-1].removeprefix("--command=")
    told = subprocess.run(["bash", "-c", f"({inner}) & wait $!"], capture_output=True, text=True, check=True).stdout
    assert told == f"{argv[2]}\0"


@given(st.lists(st.text(st.sampled_from("abAB019.-_+"), min_size=1, max_size=60), max_size=20, unique=True))
@settings(max_examples=50, deadline=None)
def test_names_of_jobs_are_valid_and_different(names):
    made = [name_of_job(name) for name in names]
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) and len(name) <= 40 for name in made)
    assert len(set(made)) == len(made)
