"""Every command of the documents can be given: its files, macros, jobs, targets and options are there.

What the commands do on a miniature is `test_documented_runs.py`'s.
"""

import importlib.util
import pathlib
import re
import runpy
from unittest import mock

import documents
import pytest
import setuptools
from documents import REPOSITORY, Command, DocumentError

from gin import config as gin
from plum_jax import guard, run, run_jobs

# No run is there to be asked: each that a command names has the configuration of this one.
OF_A_RUN = ["gin/run/quickstart.gin", "gin/corpus/ml_100k.gin", "gin/model/cpu_tiny.gin"]
# What `export_serving` brings along.
LOADER = "runs/quickstart/serving/loader.py"


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> pathlib.Path:
    """A directory of somebody who reads: runs that are finished, and a corpus file of the reader's own."""
    directory = tmp_path_factory.mktemp("reader")
    run.configure(OF_A_RUN, ["MODEL_DIR = 'runs/quickstart'"])
    configuration = gin.config_str(max_line_length=120)
    gin.clear_config()
    for name in ("quickstart", "try", "x", *(f"steering/{seed}" for seed in range(3))):
        (directory / "runs" / name).mkdir(parents=True)
        (directory / "runs" / name / run_jobs.CONFIG).write_text(configuration)
    readme = (REPOSITORY / "README.md").read_text()
    (own,) = [code for code in documents.codes_of("README.md", readme) if code.language == "gin"]
    (directory / "my_corpus.gin").write_text(own.text)
    return directory


@pytest.fixture(autouse=True)
def at_the_reader(reader, monkeypatch):
    monkeypatch.chdir(reader)
    yield
    gin.clear_config()


def check(command: Command) -> None:
    """Raises what is wrong with a command, whichever program it is of."""
    checks = {"plum": check_plum, "make": check_make, "python": check_python, "pip": check_pip}
    program, *arguments = command.words
    if program in ("apt-get", "git"):  # what is there before there is anything of ours
        return
    if program not in checks:
        raise DocumentError(f"no test knows what {program!r} is: {' '.join(command.words)}")
    checks[program](arguments)


def check_plum(arguments: list[str]) -> None:
    """Files, macros, parameters and jobs are there; nothing is run."""
    if arguments == ["--help"]:
        return
    files, bindings, *_ = run._parse_arguments(arguments)
    run.configure(files, bindings)
    gin.query_parameter("plum_jax.run.run.job")


def check_make(arguments: list[str]) -> None:
    """The target exists, and what it would have `plum` do can be given."""
    found = documents.of_make(Command("Makefile", 1, ("make", *arguments)))
    assert len(found) == (7 if arguments[0] == "quickstart" else 0)
    for command in found:
        check(command)


def check_python(arguments: list[str]) -> None:
    """The program is there and has the options; `-m` finds the module."""
    name, *rest = arguments[1:] if arguments[0] == "-m" else arguments
    if name.startswith("t5x."):
        check_t5x(rest)
        return
    if arguments[0] == "-m":
        spec = importlib.util.find_spec(name)
        path = pathlib.Path(str(spec and spec.origin))
    else:
        path = REPOSITORY / ("plum_jax/retrieval/serving_loader.py" if name == LOADER else name)
    if not path.is_file():
        raise DocumentError(f"there is no program {name}")
    text = path.read_text()
    if "timing.run(" in text:  # the benchmarks' common command
        text += (REPOSITORY / "benchmarks/timing.py").read_text()
    for option in rest:
        if option.startswith("--") and f'"{option}"' not in text:
            raise DocumentError(f"{name} has no option {option}")


def check_t5x(arguments: list[str]) -> None:
    """The gin files of a command for T5X are there, and they set or read the macros that it sets.

    T5X need not be: what it makes of the files is for tests/interop/t5x.
    """
    texts, files = "", [word.partition("=")[2] for word in arguments if word.startswith("--gin_file=")]
    while files:
        file = files.pop()
        if not (REPOSITORY / file).is_file():
            raise DocumentError(f"there is no gin file {file}")
        text = (REPOSITORY / file).read_text()
        texts, files = texts + text, files + re.findall(r"^include '(.*)'", text, flags=re.MULTILINE)
    for macro in (word[len("--gin.") :].partition("=")[0] for word in arguments if word.startswith("--gin.")):
        if "." not in macro and not re.search(rf"^{macro} =", texts, flags=re.MULTILINE):
            raise DocumentError(f"none of the gin files has the macro {macro}")


def check_pip(arguments: list[str]) -> None:
    """The extras of ours that are installed are there."""
    with mock.patch.object(setuptools, "setup") as setup:
        runpy.run_path(str(REPOSITORY / "setup.py"))
    extras = setup.call_args.kwargs["extras_require"]
    for extra in re.findall(r"plum_jax\[(.*?)\]", " ".join(arguments)):
        if not {*extra.split(",")} <= {*extras}:
            raise DocumentError(f"plum_jax has no extra {extra!r}: there are {', '.join(extras)}")


def wrong(commands: list[Command]) -> list[str]:
    """What is wrong with commands, each said with its place."""
    found = []
    for command in {(c.words, c.environment): c for c in commands}.values():
        try:
            check(command)
        except (DocumentError, run.ConfigError, guard.RunError, SystemExit, ValueError) as error:
            found.append(f"{command.place}: {error}")
    return found


@pytest.mark.parametrize("folder", sorted({file.partition("/")[0] for file in documents.documents()}))
def test_every_command_of_the_documents_can_be_given(folder: str):
    commands = [command for command in documents.commands() if command.file.partition("/")[0] == folder]
    assert len(commands) > 4, f"{folder} has commands; what finds them does not find them"
    assert not wrong(commands)


def test_what_is_completed_here_is_in_the_documents():
    texts = ""
    for file in documents.documents():
        text = (REPOSITORY / file).read_text()
        codes = documents.codes_of_gin_file(file, text) if file.endswith(".gin") else documents.codes_of(file, text)
        texts += "".join(f"{line.partition('  #')[0].strip()}\n" for code in codes for line in code.text.splitlines())
    assert not [part for part in documents.COMPLETED if f"\n{part}\n" not in texts]


def test_the_shell_reads_as_a_reader_s_would():
    page = """\
Say `make
lint`, or see:

```sh
for size in cpu_nano cpu_tiny; do
  WIDE=1 plum --gin_file=gin/model/$size.gin \\
    --gin.MODEL_DIR="'runs/a b'"   # not this
done
.venv/bin/plum recommend RUN_DIR < users.jsonl
```
"""
    found = documents.commands_in("page.md", page)
    wide = (("WIDE", "1"),)
    assert found == [
        Command("page.md", 6, ("plum", "--gin_file=gin/model/cpu_nano.gin", "--gin.MODEL_DIR='runs/a b'"), wide),
        Command("page.md", 6, ("plum", "--gin_file=gin/model/cpu_tiny.gin", "--gin.MODEL_DIR='runs/a b'"), wide),
        Command("page.md", 9, ("plum", "recommend", "runs/quickstart"), stdin="users.jsonl"),
        Command("page.md", 1, ("make", "lint")),
    ]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("```\nplum recommend RUN_DIR\n```\n", "page.md:1: a fence of no language"),
        ("- so:\n  ```sh\n  make test\n  ```\n", "page.md:2: a fence that does not begin and end at the margin"),
        ("```text\nmake test\n```\n", "page.md:2: a command in a fence of text"),
        ("\n```sh\ntrain --fast\n```\n", "page.md:3: no test knows what 'train' is: train --fast"),
        ("```sh\nplum recommend 'runs/a\n```\n", "unexpected EOF"),
        ("`plum --gin_file=gin/run/fit.gin ...`", "COMPLETED does not say what goes with it"),
        ("as `--gin_file=gin/run/fit.gin` does", "COMPLETED does not say what goes with it"),
        (f"see\n`{documents.PIPELINE} --gin.CPT_STEP=3`", "page.md:2: nothing reads the macro CPT_STEP"),
        ("`--gin.CPT_STEP=3`", "nothing reads the macro CPT_STEP: did you mean CPT_STEPS"),
        ("`--gin.schedules.WarmupCosine.peek=3`", "peek"),
        ("`plum --gin_file=gin/run/model_size.gin`", "the macro MODEL_DIR is read but not set"),
        ("`plum --gin_file=gin/run/pipelin.gin`", "there is no gin file gin/run/pipelin.gin"),
        ("`plum recomend RUN_DIR`", "page.md:1: there is no job 'recomend'"),
        ("`plum recommend RUN_DIR --gin.NUM_USERS=3`", "NUM_USERS is a setting of the run"),
        ("`plum recommend RUN_DIR --fast`", "page.md:1: 2"),
        ("`make tset`", "No rule to make target"),
        ("`make quickstart GIN=--gin.CPT_STEP=3`", "nothing reads the macro CPT_STEP"),
        ("`python benchmarks/fitt.py`", "there is no program benchmarks/fitt.py"),
        ("`python benchmarks/fit.py --quik`", "benchmarks/fit.py has no option --quik"),
        ("`python -m plum_jax.scaling.covrage --draws 3`", "there is no program plum_jax.scaling.covrage"),
        ("`pip install 'plum_jax[tpus]'`", "plum_jax has no extra 'tpus'"),
    ],
)
def test_a_command_that_cannot_be_given_is_named_with_its_place(page: str, message: str):
    try:
        found = wrong(documents.commands_in("page.md", page))
    except DocumentError as error:
        found = [str(error)]
    assert len(found) == 1 and message in found[0] and "page.md" in found[0], found
