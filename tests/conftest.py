"""Shared by all tests: eight fake CPU devices, and the real data where it is there."""

import os
import pathlib

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
# Many tests compile the same small programs, some in processes of their own.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Directory of real data (`PLUM_TEST_DATA`, else `shared/data` beside the repository); skips where it is not."""
    directory = pathlib.Path(os.environ.get("PLUM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not directory.exists():
        pytest.skip(f"no real data at {directory}: set PLUM_TEST_DATA")
    return directory
