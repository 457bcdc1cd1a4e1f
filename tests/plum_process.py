"""`plum` in one other process that has one device, as a user has: what takes seconds to import is imported once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import multiprocessing
import os
import pathlib
import subprocess
import traceback

from fast_compiling import FAST_COMPILING
from garbage import leave_out_what_is_there

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


class PlumProcess:
    """Gives commands to `plum` one after the other. To be closed."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=context, initializer=_one_device)

    def close(self) -> None:
        self._pool.shutdown()

    def run(self, arguments: list[str], directory: pathlib.Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
        """What a command that is given in `directory` comes to."""
        return self._pool.submit(_run, arguments, directory).result(timeout=600)


def _one_device() -> None:
    os.environ["XLA_FLAGS"] = FAST_COMPILING


def _run(arguments: list[str], directory: pathlib.Path) -> subprocess.CompletedProcess[str]:
    from plum_jax import run

    leave_out_what_is_there()
    out, err = io.StringIO(), io.StringIO()
    code: int | str | None = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            os.chdir(directory)
            run.main(arguments)
        except SystemExit as stopped:
            code = stopped.code
            if isinstance(code, str):
                print(code, file=err)
        except BaseException:
            traceback.print_exc()
            code = 1
    code = code if isinstance(code, int) else int(code is not None)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
