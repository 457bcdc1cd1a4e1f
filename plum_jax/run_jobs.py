"""`plum JOB RUN_DIR`: a job on a finished run, which answers for itself with the configuration that it has saved."""

from __future__ import annotations

import difflib
import pathlib
import re
from collections.abc import Sequence

from etils import epath

from plum_jax.guard import RunError

CONFIG = "config.gin"
_ROOT = pathlib.Path(__file__).resolve().parents[1]
# Macros that a job's file reads and that are the run's own.
_OF_THE_RUN = {"MODEL_DIR", "DATA", "PIPELINE", "SYSTEMS"}


def names() -> list[str]:
    """The jobs: files of gin/run/ that bind `run.run.serving`."""
    return sorted(file.stem for file in (_ROOT / "gin" / "run").glob("*.gin") if "serving = True" in file.read_text())


def as_files(arguments: Sequence[str]) -> list[str]:
    """`JOB RUN_DIR flags...` as gin files and flags; other arguments as they came.

    Raises:
      RunError: no such job, no such run, or a flag that sets what is not the job's own.
    """
    if not arguments or arguments[0].startswith("-"):
        return list(arguments)
    job, *rest = arguments
    if job not in names():
        near = difflib.get_close_matches(job, names(), n=1, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"jobs there are: {', '.join(names())}"
        raise RunError(f"there is no job {job!r}: {hint}")
    if not rest or rest[0].startswith("-"):
        raise RunError(f"expected the directory of a run: plum {job} RUN_DIR")
    run_dir, flags = epath.Path(rest[0]), rest[1:]
    _require_run(run_dir, job)
    _require_own(job, flags)
    files = [f"--gin_file={run_dir / CONFIG}", f"--gin_file=gin/run/{job}.gin"]
    return [*files, f"--gin.MODEL_DIR={str(run_dir)!r}", *flags]


def settings(job: str) -> list[str]:
    """The macros that the job's file sets or reads, less those that are the run's own."""
    text = (_ROOT / "gin" / "run" / f"{job}.gin").read_text()
    found = re.findall(r"%([A-Z_]+)", text) + re.findall(r"^([A-Z_]+) =", text, flags=re.MULTILINE)
    return sorted({*found} - _OF_THE_RUN)


def _require_run(run_dir: epath.Path, job: str) -> None:
    config = run_dir / CONFIG
    if not config.exists():
        what = f"it has no {CONFIG}" if run_dir.exists() else "there is no such directory"
        raise RunError(f"{job}: expected the directory of a run, got {run_dir}: {what}")
    modules = re.findall(r"^(?:from ([\w.]+) )?import ([\w.]+)", config.read_text(), flags=re.MULTILINE)
    for package, name in modules:
        module = f"{package}.{name}" if package else name
        parts = module.split(".")
        ours = parts[0] in ("plum_jax", "tasks")
        if ours and not any((_ROOT.joinpath(*parts)).with_suffix(end).exists() for end in (".py", "")):
            raise RunError(
                f"{config} names {module}, which this version does not have: {run_dir} is a run of another version; "
                "use that version, or train it anew"
            )


def _require_own(job: str, flags: Sequence[str]) -> None:
    own = settings(job)
    for flag in flags:
        name = flag.removeprefix("--gin.").partition("=")[0]
        if flag.startswith("--gin.") and name.isupper() and name not in own:
            raise RunError(f"{job}: {name} is a setting of the run, which has its own; the job's are {', '.join(own)}")
        if flag.startswith("--gin_file"):
            raise RunError(f"{job}: a run brings its gin files; for others, give all by --gin_file, and no job")
