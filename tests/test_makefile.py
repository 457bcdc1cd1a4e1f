"""What `make` does before the first command: which Python it takes, and which .venv it believes. No network is used."""

import os
import pathlib
import shutil
import stat
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
STAMP = f".venv/test-{VERSION}.stamp"

# A Python that answers questions truly, makes environments that hold itself, and whose pip only writes down what it was
# asked for; it dies in the middle where the file `kill-pip` is.
FAKE_PYTHON = f"""#!/bin/bash
case "$1 $2" in
  "-m venv") echo venv >> calls; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip") echo "pip ${{*: -1}}" >> calls; touch .venv/half-installed; [ ! -e kill-pip ] || exit 137 ;;
  *) exec "{sys.executable}" "$@" ;;
esac
"""


def executable(path: pathlib.Path, text: str) -> pathlib.Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def project(tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    shutil.copy(REPOSITORY / "setup.py", tmp_path)
    shutil.copytree(REPOSITORY / "requirements", tmp_path / "requirements")
    executable(tmp_path / "bin" / "python", FAKE_PYTHON)
    return tmp_path


def make(project: pathlib.Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")}
    environment["PATH"] = path or environment["PATH"]
    return subprocess.run(
        ["make", *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def calls(project: pathlib.Path) -> list[str]:
    done = (project / "calls").read_text().split("\n")[:-1]
    (project / "calls").unlink()
    return done


def test_an_environment_is_made_once(project: pathlib.Path):
    install = ["pip wheel", "pip .[test]"]
    done = make(project, STAMP, "PYTHON=bin/python")
    assert done.returncode == 0, done.stderr
    assert calls(project) == ["venv", *install]
    assert f"-c requirements/constraints-{VERSION}.txt" in done.stdout
    assert "is up to date" in make(project, STAMP, "PYTHON=bin/python").stdout
    assert not (project / "calls").exists()
    assert make(project, STAMP.replace("test", "cpu"), "PYTHON=bin/python").returncode == 0
    assert calls(project) == ["pip wheel", "pip .[cpu]"], "other extras go into the same environment"


@pytest.mark.parametrize("changed", ["setup.py", f"requirements/constraints-{VERSION}.txt"])
def test_new_requirements_are_installed(project: pathlib.Path, changed: str):
    make(project, STAMP, "PYTHON=bin/python")
    calls(project)
    later = (project / STAMP).stat().st_mtime + 10
    os.utime(project / changed, (later, later))
    make(project, STAMP, "PYTHON=bin/python")
    assert calls(project) == ["pip wheel", "pip .[test]"]


def test_an_interrupted_installation_is_thrown_away(project: pathlib.Path):
    (project / "kill-pip").touch()
    assert make(project, STAMP, "PYTHON=bin/python").returncode != 0
    assert calls(project) == ["venv", "pip wheel"]
    assert not (project / STAMP).exists()
    assert (project / ".venv" / "half-installed").exists()
    (project / "kill-pip").unlink()
    (project / ".venv" / "from-before").touch()
    assert make(project, STAMP, "PYTHON=bin/python").returncode == 0
    assert calls(project) == ["venv", "pip wheel", "pip .[test]"]
    assert not (project / ".venv" / "from-before").exists(), "half an installation was kept"


def test_shims_that_fail_and_other_versions_are_passed_over(project: pathlib.Path):
    executable(
        project / "shims" / "python3.12", "#!/bin/bash\necho 'pyenv: python3.12: command not found' >&2; exit 127\n"
    )
    executable(project / "shims" / "python3.11", "#!/bin/bash\nexit 1\n")
    executable(project / "shims" / "python3", FAKE_PYTHON)
    done = make(project, STAMP, path=f"{project}/shims:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert f"Making .venv with python3 (Python {VERSION})" in done.stdout


def test_no_python_is_one_message_that_says_what_to_do(project: pathlib.Path):
    executable(project / "bin" / "old", "#!/bin/bash\n[[ $* == *print* ]] && echo 3.9\n")
    done = make(project, "test", "PYTHON=bin/old")
    assert done.returncode != 0
    assert "Expected Python 3.11 or 3.12 with venv and ensurepip, found: bin/old 3.9." in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr
    assert not (project / ".venv").exists()


def test_make_alone_lists_every_command(project: pathlib.Path):
    shown = make(project).stdout
    for target in ("quickstart", "test", "test-all", "lint", "lock", "clean"):
        assert f"make {target} " in shown
