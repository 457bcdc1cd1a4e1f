"""Shared by all tests: eight fake CPU devices, and the real data where it is there."""

import os
import pathlib
from collections.abc import Iterator

import pytest
from fast_compiling import FAST_COMPILING
from garbage import leave_out_what_is_there
from own_csv_run import plum_arguments, write_own_csv
from plum_process import PlumProcess

os.environ.setdefault("JAX_PLATFORMS", "cpu")
XLA_FLAGS = f"--xla_force_host_platform_device_count=8 {FAST_COMPILING}"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {XLA_FLAGS}"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
# Many tests compile the same small programs, some in processes of their own.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


@pytest.fixture(scope="module", autouse=True)
def nothing_of_earlier_modules() -> None:
    """Programs of all modules take 7 GB, and more mappings of memory than Linux gives a process (65,530)."""
    import jax  # when the environment above is set

    jax.clear_caches()
    leave_out_what_is_there()


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Directory of real data (`PLUM_TEST_DATA`, else `shared/data` beside the repository); skips where it is not."""
    directory = pathlib.Path(os.environ.get("PLUM_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not directory.exists():
        pytest.skip(f"no real data at {directory}: set PLUM_TEST_DATA")
    return directory


@pytest.fixture(scope="session")
def own_csv(tmp_path_factory) -> pathlib.Path:
    """A hundred rows with odd column names, and the ten-line gin file beside them."""
    directory = tmp_path_factory.mktemp("own")
    write_own_csv(directory)
    return directory


@pytest.fixture(scope="session")
def plum() -> Iterator[PlumProcess]:
    """Another process to give commands to: to import what a run needs takes longer than most runs of tests."""
    process = PlumProcess()
    yield process
    process.close()


@pytest.fixture(scope="session")
def finished(own_csv, plum, tmp_path_factory) -> tuple[pathlib.Path, str]:
    """A finished run and what it printed."""
    model_dir = tmp_path_factory.mktemp("run") / "model"
    done = plum.run(plum_arguments(own_csv, model_dir))
    assert done.returncode == 0, done.stderr[-3000:]
    return model_dir, done.stdout
