"""`plum`: the one command. Reads gin files, checks them, and runs the job they name. The only file that imports gin."""

from __future__ import annotations

import argparse
import difflib
import os
import pathlib
import platform
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from etils import epath

from gin import config as gin  # type: ignore[attr-defined]
from plum_jax import artifact, guard, run_jobs
from plum_jax.allocator import keep_freed_memory

HELP = """\
Runs what gin files say: usually one file for the run, one for the corpus and one for the model's size.

  plum --gin_file=gin/run/pipeline.gin \\
       --gin_file=gin/corpus/ml_100k.gin \\
       --gin_file=gin/model/cpu_tiny.gin \\
       --gin.MODEL_DIR="'runs/quickstart'"

  plum recommend runs/quickstart --gin.ITEMS_PER_USER=20

does a job on a finished run, with the run's own configuration and the job's settings: {jobs}.

A later file or flag overrides an earlier one. Macros are in CAPITALS; text values need their own quotes.
Everything a run makes lies in its MODEL_DIR, its whole configuration in MODEL_DIR/config.gin. Started again with the
same configuration, a run skips what is done and goes on where it was. SIGTERM (preemption) and Ctrl-C in training
save a checkpoint first; the exit code is then 143 or 130.
"""

# What --profile and its number bind; a run that trains in several phases traces each.
PROFILE = "plum_jax.training.training_config.TrainingConfig.profile_steps"

IN_CALL = "\n  In call to configurable"


# What `--remake` says: stages and trainings of other settings are made anew.
_remake = False

# What this process was started with, for `own_command`.
_arguments: list[str] = []


class ConfigError(ValueError):
    """The gin files or flags do not make a run."""


def run(job: Callable[[str], Any], model_dir: str, save_config: bool = True, serving: bool = False) -> Any:
    """Saves the configuration beside the run and does the job.

    Args:
      job: called with `model_dir`; `gin/run/*.gin` bind it to a function of `plum_jax.jobs`.
      model_dir: where all that the run makes goes (local or gs://).
      save_config: False for a job that only looks at what others made there.
      serving: the job uses what a run has trained, changes no stage of it and keeps its configuration.
    """
    directory = epath.Path(model_dir)
    if serving:
        with guard.guarded(model_dir, serving=True):
            return job(model_dir)
    if not save_config:
        return job(model_dir)
    directory.mkdir(parents=True, exist_ok=True)
    from plum_jax.training import processes  # JAX: not for --help, nor for a gin file that cannot be read

    path, first = directory / "config.gin", processes.share()[0] == 0
    before = path.read_text() if path.exists() else None
    if first:
        artifact.write_text(path, gin.config_str(max_line_length=120))
    try:
        with guard.guarded(model_dir, remake=_remake):
            return job(model_dir)
    except guard.RunError:
        # The run is still what it was: so is its configuration.
        if first and before is not None:
            artifact.write_text(path, before)
        raise


def own_command() -> list[str]:
    """The command (argv) that runs this process's gin files and flags again; more may be added behind it."""
    return [sys.executable, "-m", "plum_jax.run", *_arguments]


def configure(gin_files: Sequence[str], bindings: Sequence[str]) -> None:
    """Parses files, then single bindings over them.

    Raises:
      ConfigError: a file that does not exist, a value that gin cannot read, a name that does not exist, or a macro that
        nothing reads; near matches are named.
    """
    gin.clear_config()
    # A gin file names modules as seen from the repository's root; `plum` may be started elsewhere.
    root = str(pathlib.Path(__file__).resolve().parents[1])
    if root not in gin._LOCATION_PREFIXES:
        gin.add_config_file_search_path(root)
    # gin's second reader takes a folder for a Python package: it prints an error for every file that is elsewhere, and
    # fails on a folder that is no package.
    del gin._FILE_READERS[1:]
    for file in gin_files:
        _require_file(file, root)
    try:
        gin.parse_config_files_and_bindings(list(gin_files), list(bindings), finalize_config=False)
    except (ValueError, TypeError, SyntaxError, ImportError, AttributeError, KeyError, NameError, OSError) as error:
        raise ConfigError(f"the gin configuration cannot be read: {error}") from error
    _require_macros()


def _require_file(file: str, root: str) -> None:
    if os.path.exists(file) or os.path.exists(os.path.join(root, file)):
        return
    known = [str(p.relative_to(root)) for p in pathlib.Path(root, "gin").rglob("*.gin")]
    near = difflib.get_close_matches(file, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"gin files there are: {', '.join(sorted(known))}"
    raise ConfigError(f"there is no gin file {file}: {hint}")


def _require_macros() -> None:
    """A misspelt macro passes silently in gin; here a macro that nothing reads, or that nobody sets, is an error."""
    bound = gin._CONFIG  # gin has no public view of its macros
    defined = {scope for scope, selector in bound if selector == "gin.macro"}
    read_by_macro = {
        scope: set(_macros_in(arguments)) for (scope, selector), arguments in bound.items() if selector == "gin.macro"
    }
    read = {m for (_, selector), args in bound.items() if selector != "gin.macro" for m in _macros_in(args)}
    while more := {m for name in read for m in read_by_macro.get(name, ())} - read:
        read |= more
    for name in sorted(defined - read):
        near = difflib.get_close_matches(name, sorted((read | defined) - {name}), n=3, cutoff=0.6)
        names = " or ".join(near) if near else ", ".join(sorted(read))
        raise ConfigError(f"nothing reads the macro {name}: did you mean {names}? (else take it out)")
    for name in sorted(read - defined):
        near = difflib.get_close_matches(name, sorted(defined), n=3, cutoff=0.6)
        hint = f" (did you write {' or '.join(near)}?)" if near else ""
        raise ConfigError(f"the macro {name} is read but not set: add --gin.{name}=...{hint}")


def _macros_in(value: Any) -> Iterator[str]:
    if isinstance(value, gin.ConfigurableReference):
        if value.selector == "gin.macro":
            yield "/".join(value.scopes)
    elif isinstance(value, dict):
        for item in (*value.keys(), *value.values()):
            yield from _macros_in(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _macros_in(item)


def _parse_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str], bool, bool]:
    """Files, bindings, whether the run has several processes, and whether what differs is made anew."""
    parser = argparse.ArgumentParser(
        prog="plum",
        description=HELP.format(jobs=", ".join(run_jobs.names())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--gin_file", action="append", default=[], metavar="FILE", help="a gin file; may be repeated")
    parser.add_argument(
        "--gin.NAME=VALUE",
        dest="example",
        action="store_const",
        const=None,
        help="sets a macro or a parameter, e.g. --gin.STEPS=500 or --gin.training_config.TrainingConfig.seed=1",
    )
    parser.add_argument(
        "--profile",
        nargs="?",
        const=5,
        default=0,
        type=int,
        metavar="STEPS",
        help="traces so many steps (5) of each training into <its directory>/profile, for Perfetto and TensorBoard",
    )
    parser.add_argument(
        "--multi_process",
        action="store_true",
        help="this is one of several processes of a run (jax.distributed): the same command on every host of a pod",
    )
    parser.add_argument(
        "--remake",
        action="store_true",
        help="stages and trainings that lie in MODEL_DIR and were made with other settings are made anew",
    )
    everything = run_jobs.as_files(arguments)
    # argparse takes --gin.KS="(1, 5)", for its space, for a value of the flag before it.
    settings = [argument for argument in everything if argument.startswith("--gin.")]
    known, rest = parser.parse_known_args([argument for argument in everything if not argument.startswith("--gin.")])
    for argument in rest + [setting for setting in settings if "=" not in setting]:
        parser.error(f"expected --gin_file=FILE or --gin.NAME=VALUE, got {argument!r}")
    bindings = [" = ".join(setting.removeprefix("--gin.").split("=", 1)) for setting in settings]
    if not known.gin_file:
        parser.print_help()
        raise SystemExit(2)
    if known.profile:
        bindings.append(f"{PROFILE} = {known.profile}")
    return known.gin_file, bindings, known.multi_process, known.remake


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: an error that a user can mend is one message and exit code 1, never a traceback."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keep_freed_memory()
    keep_compiled()
    _arguments[:] = sys.argv[1:] if arguments is None else arguments
    global _remake
    try:
        files, bindings, multi_process, _remake = _parse_arguments(_arguments)
        if multi_process:
            from plum_jax.training import processes

            processes.join()
        configure(files, bindings)
        gin.get_configurable(run)()
    except KeyboardInterrupt:
        raise SystemExit("plum: stopped; the same command goes on from here") from None
    except (ValueError, FloatingPointError, OSError) as error:
        if not _raised_here(error):
            raise
        # gin adds lines that say which configurable was called; they help nobody who reads the message.
        raise SystemExit(f"plum: {str(error).partition(IN_CALL)[0]}") from None


def keep_compiled() -> None:
    """Programs that took long to compile are read from ~/.cache/plum_jax the next time, unless JAX is told otherwise.

    To be called before JAX is imported. What is compiled for one processor may not run on another that shares the home
    directory, so each kind has its own directory.
    """
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):  # not Linux
        flags = platform.processor()
    kind = f"{platform.machine()}-{artifact.fingerprint(' '.join(sorted(flags.split())))}"
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "plum_jax", "xla", kind)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _raised_here(error: BaseException) -> bool:
    """Whether our own code raised it on purpose; an error from the depths of a library keeps its traceback."""
    gin_itself = f"{os.sep}gin{os.sep}config.py"  # it re-raises what a configurable raises
    frames = [f for f in traceback.extract_tb(error.__traceback__) if gin_itself not in f.filename]
    root = str(pathlib.Path(__file__).resolve().parents[1])
    inside = tuple(os.path.join(root, package) + os.sep for package in ("plum_jax", "tasks"))
    return bool(frames) and os.path.realpath(frames[-1].filename).startswith(inside)


if __name__ == "__main__":
    from plum_jax import run as module  # gin configures plum_jax.run.run, not __main__.run

    module.main()
