"""The commands that the documents show, as a shell reads them: continued lines, comments, quotes, loops."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
# CHANGELOG.md and experiments/LOG.md say what was done with the program of that day.
PAGES = ["README.md", "CONTRIBUTING.md", "docs/*.md", "experiments/*/README.md", "benchmarks/README.md"]
# Their first comments show how they are called.
GIN_FILES = ["gin/**/*.gin", "experiments/**/*.gin"]
LANGUAGES = ("sh", "python", "gin", "text")

CORPUS, MODEL = "--gin_file=gin/corpus/ml_100k.gin", "--gin_file=gin/model/cpu_tiny.gin"
MODEL_DIR = """--gin.MODEL_DIR="'runs/try'\""""
PIPELINE = f"plum --gin_file=gin/run/pipeline.gin {CORPUS} {MODEL} {MODEL_DIR}"
PAYMENTS = "--gin_file=gin/corpus/card_payments.gin"
STUDY = "--gin_file=gin/corpus/simulator.gin --gin_file=gin/study/simulated.gin"
RUNS = """--gin.RUNS="'runs.csv'" --gin.COLUMNS="{'N': 'params', 'D': 'tokens', 'loss': 'final_loss'}\""""
STUDY_DIR = """--gin.STUDY_DIR="'runs/simulated'\""""

# Parts of commands, and what the sentence or the head of the table around them says goes with them. {} is the part.
COMPLETED = {
    "--gin_file=gin/run/pipeline.gin": f"plum {{}} {CORPUS} {MODEL} {MODEL_DIR}",
    "plum --gin_file=gin/run/pipeline.gin": f"{{}} {CORPUS} {MODEL} {MODEL_DIR}",
    "--gin_file=gin/run/lum.gin": f"plum {{}} {CORPUS} {MODEL_DIR}",
    "--gin_file=gin/run/unicorn.gin": (
        f"plum {{}} {CORPUS} {MODEL_DIR} --gin.UNICORN_QUERY_FIELD=\"'path'\" --gin.UNICORN_TEXT=\"('title',)\""
    ),
    "--gin_file=gin/run/product_search.gin": (
        f"plum {{}} {CORPUS} {MODEL_DIR} --gin.SEARCH_QUERY_FIELD=\"'path'\" --gin.SEARCH_TEXT=\"('title',)\""
    ),
    "--gin_file=gin/run/relevance.gin": (
        f"plum {{}} {MODEL_DIR} --gin.JUDGEMENTS=\"'a.tsv'\" --gin.ITEMS=\"'b.tsv'\" --gin.PRETRAINED=\"'path/to/it'\""
    ),
    "--gin_file=gin/run/query_understanding.gin": (
        f"plum {{}} {CORPUS} {MODEL_DIR} --gin.CATEGORY_FIELD=\"'path'\" --gin.QUERY_TEXT=\"('title',)\""
    ),
    "--gin_file=gin/run/m6rec.gin": f"plum {{}} {CORPUS} {MODEL_DIR}",
    "--gin_file=gin/run/rank.gin": f"plum {{}} {CORPUS} {MODEL_DIR}",
    "--gin_file=gin/run/days.gin": f"plum {{}} {CORPUS} {MODEL} {MODEL_DIR}",
    "--gin_file=gin/run/trunk.gin": f"plum {{}} {CORPUS} {MODEL_DIR}",
    "--gin_file=gin/run/payments.gin": f"plum {{}} {PAYMENTS} {MODEL_DIR}",
    "--gin_file=gin/run/semantic_ids.gin": f"plum {{}} {CORPUS} {MODEL} {MODEL_DIR}",
    "--gin_file=gin/semantic_ids/sid_v2.gin": f"plum --gin_file=gin/run/semantic_ids.gin {CORPUS} {{}} {MODEL_DIR}",
    """--gin_file=gin/run/pipeline.gin --gin.PRETRAINED="'path/to/it'\"""": f"plum {{}} {CORPUS} {MODEL_DIR}",
    "--gin_file=gin/run/prepare.gin": f"plum {{}} {CORPUS} {MODEL} {MODEL_DIR}",
    "--gin_file=gin/run/search.gin": f"plum {{}} {CORPUS} {MODEL_DIR}",
    "--gin_file=gin/run/mixture_rates.gin": f"plum {{}} {CORPUS} --gin_file=gin/model/cpu_nano.gin {MODEL_DIR}",
    "--gin_file=gin/run/compare.gin": f"plum {{}} {MODEL_DIR} --gin.FIRST=\"'a.json'\" --gin.SECOND=\"'b.json'\"",
    "--gin_file=gin/run/model_size.gin": f"plum {{}} {MODEL} {MODEL_DIR}",
    "--gin_file=gin/run/compile.gin": f"plum {{}} {MODEL} {MODEL_DIR}",
    "--gin_file=gin/run/study_plan.gin": f"plum {{}} {STUDY} {STUDY_DIR}",
    f"--gin_file=gin/run/fit.gin {RUNS}": f"plum {{}} {MODEL_DIR}",
    "--gin.WRITE_PLAN=False": f"plum --gin_file=gin/run/study_plan.gin {STUDY} {STUDY_DIR} {{}}",
    "--gin.ITEMS_PER_USER=20": "plum recommend RUN_DIR {}",
    "--gin.SYSTEM=\"'sasrec'\"": "plum recommend RUN_DIR {}",
    "--gin.SYSTEM=\"'item_history'\"": "plum export_serving RUN_DIR {}",
    "--gin.SLICES=2 --gin.mesh.MeshShape.data=2": f"plum --gin_file=gin/run/compile.gin {MODEL} {MODEL_DIR} {{}}",
    "plum ... --profile": f"{PIPELINE} --profile",
    "plum ... --multi_process": f"{PIPELINE} --multi_process",
    f"plum --gin_file=gin/run/semantic_ids.gin {CORPUS} --gin_file=gin/semantic_ids/sid_v2.gin ...": (
        f"plum --gin_file=gin/run/semantic_ids.gin {CORPUS} --gin_file=gin/semantic_ids/sid_v2.gin {MODEL_DIR}"
    ),
    "plum --gin_file=gin/run/study_plan.gin --gin_file=... --gin_file=gin/study/pod.gin --gin.PRICE=1.2 ...": (
        f"plum --gin_file=gin/run/study_plan.gin {STUDY} --gin_file=gin/study/pod.gin --gin.PRICE=1.2 {STUDY_DIR}"
    ),
}
# What a reader puts his own in place of.
PRETENDED = {"JOB": "recommend", "RUN_DIR": "runs/quickstart", "[--quick]": "--quick"}

# Each program writes down what it is called with: file, line, arguments, what it is given to read, and its environment.
RECORD = r"""
record() {
  local read names name
  mapfile -d '' read
  names=($(compgen -e))
  printf '%s\0' "${BASH_SOURCE[2]}" "${BASH_LINENO[1]}" "$#" "$@" "${read[*]}" "${#names[@]}" >> "$RECORDED"
  for name in "${names[@]}"; do printf '%s\0' "$name=${!name}"; done >> "$RECORDED"
}
plum() { record plum "$@"; }
.venv/bin/plum() { record plum "$@"; }
command_not_found_handle() { record "$@"; }
export -f record plum command_not_found_handle
set -e
source "$1"
"""
OF_THE_SHELL = {"PATH", "PWD", "OLDPWD", "SHLVL", "_", "RECORDED", "PLUM"}


class DocumentError(ValueError):
    """Code of a document that is no command, or is not said to be one."""


@dataclasses.dataclass(frozen=True)
class Code:
    """Code of a document: a fence with its language, or code in a sentence, which has none."""

    file: str
    line: int  # of the first line
    text: str
    language: str = ""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command as the shell calls it."""

    file: str
    line: int
    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    stdin: str = ""  # the name of the file that it reads

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def gin_files(self) -> list[str]:
        return [word.partition("=")[2] for word in self.words if word.startswith("--gin_file=")]

    @property
    def kind(self) -> str:
        """What two commands have in common that do the same with other settings or in other places."""
        program, *rest = self.words
        if program == "plum":
            named = [pathlib.PurePath(file).name for file in self.gin_files] or [w for w in rest[:1] if w[0] != "-"]
            named += [word for word in rest if re.match("--(?!gin)", word)]
        else:
            named = rest[:2] if rest[:1] == ["-m"] else rest[:1]
        return " ".join([*(name for name, _ in self.environment), program, *named])


def documents() -> list[str]:
    found = {path for pattern in (*PAGES, *GIN_FILES) for path in REPOSITORY.glob(pattern)}
    return sorted(str(path.relative_to(REPOSITORY)) for path in found)


def codes_of(file: str, text: str) -> Iterator[Code]:
    """The fences of a page, and the code in its sentences, which may go over the end of a line.

    Raises:
      DocumentError: a fence that does not say its language.
    """
    fenced = re.compile(r"^```([^\n]*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
    for match in fenced.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match[1] not in LANGUAGES:
            raise DocumentError(f"{file}:{line}: a fence of {match[1] or 'no language'}: expected one of {LANGUAGES}")
        yield Code(file, line + 1, match[2], match[1])
    sentences = fenced.sub(lambda match: "\n" * match[0].count("\n"), text)
    if "```" in sentences:
        line = sentences.count("\n", 0, sentences.index("```")) + 1
        raise DocumentError(f"{file}:{line}: a fence that does not begin and end at the margin")
    for match in re.finditer(r"`((?:[^`\n]|\n(?!\n))+)`", sentences):
        yield Code(file, sentences.count("\n", 0, match.start()) + 1, match[1].replace("\n", " ").replace(r"\|", "|"))


def codes_of_gin_file(file: str, text: str) -> Iterator[Code]:
    """The commands in the comments of a gin file."""
    for match in re.finditer(r"^# +(?:plum|python -m) .*(?:(?<=\\)\n#.*)*", text, flags=re.MULTILINE):
        yield Code(file, text.count("\n", 0, match.start()) + 1, re.sub(r"^# +", "", match[0], flags=re.M), "sh")


def script_of(code: Code) -> str | None:
    """What is given to the shell, or None for what is no command.

    Raises:
      DocumentError: a part of a command of which nothing says what goes with it; a command where there should be none.
    """
    text = code.text.strip()
    begins = re.compile(r"^\s*(\w+=\S* )*(\.venv/bin/)?(plum|make|python3?|pip|apt-get) ", flags=re.MULTILINE)
    if code.language not in ("", "sh"):
        if begins.search(code.text):
            raise DocumentError(f"{code.file}:{code.line}: a command in a fence of {code.language}: expected sh")
        return None
    if code.language == "sh":
        return "\n".join(_completed(code, line) if " ..." in line else line for line in code.text.splitlines())
    if text in COMPLETED or re.match(r"--gin(_file=.|\.\w.*=)", text) or (" ..." in text and begins.match(text)):
        return _completed(code, text)
    return text if begins.match(text) else None


def _completed(code: Code, line: str) -> str:
    text = line.partition("  #")[0].strip()
    if text not in COMPLETED and not re.match(r"--gin\.\w.*=", text):
        raise DocumentError(
            f"{code.file}:{code.line}: {text!r} is a part of a command: COMPLETED does not say what goes with it"
        )
    return COMPLETED.get(text, f"{PIPELINE} {{}}").format(text)


def read_by_the_shell(code: Code, script: str) -> list[Command]:
    """The commands of a script, in the order in which bash calls them. No program is run but scripts of the repository.

    Raises:
      DocumentError: bash stops at an error.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        recorded, source = directory / "recorded", directory / "source.sh"
        recorded.touch()
        source.write_text("\n" * (code.line - 1) + script + "\n")  # so that lines have the numbers of the document
        # Where the reader is: the repository, and files of his own that a command reads.
        (directory / "experiments").symlink_to(REPOSITORY / "experiments")
        (directory / "users.jsonl").write_text("users.jsonl")
        (directory / "bin").mkdir()
        (directory / "bin" / "dirname").symlink_to(shutil.which("dirname") or "/usr/bin/dirname")
        environment = {"PATH": str(directory / "bin"), "RECORDED": str(recorded), "PLUM": "plum"}
        done = subprocess.run(
            [shutil.which("bash") or "/bin/bash", "-c", RECORD, "bash", str(source)],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DocumentError(f"{code.file}: the shell cannot read this: {done.stderr}")
        return list(_records(code, str(source), recorded.read_text().split("\0")[:-1]))


def of_make(command: Command) -> list[Command]:
    """What a target has `plum` do, and what it says that one may do then.

    Raises:
      DocumentError: there is no such target.
    """
    without = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # of the make that runs the tests
    environment = {name: value for name, value in os.environ.items() if name not in without}
    line = ["make", "--dry-run", f"PYTHON={sys.executable}", *command.words[1:]]
    done = subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DocumentError(done.stderr.strip())
    found = re.findall(r'^\.venv/bin/plum .*(?:(?<=\\)\n.*)*|(?<=")  \.venv/bin/plum [^"]*', done.stdout, re.MULTILINE)
    return [one for text in found for one in read_by_the_shell(Code("Makefile", 1, text, "sh"), text)]


def _records(code: Code, source: str, fields: list[str]) -> Iterator[Command]:
    rest = iter(fields)
    for file in rest:
        line = int(next(rest))
        words = tuple(PRETENDED.get(word, word) for word in [next(rest) for _ in range(int(next(rest)))])
        stdin = next(rest)
        variables = dict(next(rest).split("=", 1) for _ in range(int(next(rest))))
        given = tuple(sorted((name, value) for name, value in variables.items() if name not in OF_THE_SHELL))
        named = code.file if file == source else os.path.relpath(file)
        yield Command(named, line, words, given, stdin)


def commands_in(file: str, text: str) -> list[Command]:
    """Every command of one document.

    Raises:
      DocumentError: as above.
    """
    codes = codes_of_gin_file(file, text) if file.endswith(".gin") else codes_of(file, text)
    scripts = [(code, script_of(code)) for code in codes]
    return [command for code, script in scripts if script for command in read_by_the_shell(code, script)]


@functools.cache
def commands() -> list[Command]:
    """Every command of every document, those of a page in its order."""
    return [command for file in documents() for command in commands_in(file, (REPOSITORY / file).read_text())]
