"""`plum` in one other process that has one device, as a user has: what takes seconds to import is imported once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import multiprocessing
import os
import pathlib
import traceback

from fast_compiling import FAST_COMPILING


class PlumProcess:
    """Gives commands to `plum` one after the other. To be closed."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=context, initializer=_one_device)

    def close(self) -> None:
        self._pool.shutdown()

    def run(self, arguments: list[str], directory: pathlib.Path) -> tuple[int, str]:
        """Exit code and all that was printed, of a command that is given in `directory`."""
        return self._pool.submit(_run, arguments, directory).result(timeout=600)


def _one_device() -> None:
    os.environ["XLA_FLAGS"] = FAST_COMPILING


def _run(arguments: list[str], directory: pathlib.Path) -> tuple[int, str]:
    from plum_jax import run

    printed = io.StringIO()
    code: int | str | None = 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            os.chdir(directory)
            run.main(arguments)
        except SystemExit as stopped:
            code = stopped.code
            if isinstance(code, str):
                print(code)
        except BaseException:
            traceback.print_exc()
            code = 1
    return (code if isinstance(code, int) else int(code is not None)), printed.getvalue()
