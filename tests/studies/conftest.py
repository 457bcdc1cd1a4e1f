"""What the cells of all small studies share is made once for a session of tests."""

import pathlib
import shutil
from collections.abc import Callable

import pytest
from small_study import study

from plum_jax.studies.shared import shared


@pytest.fixture(scope="session")
def study_directory(tmp_path_factory) -> Callable[[], pathlib.Path]:
    """Gives directories of small studies in which the shared artefacts are there."""
    made = tmp_path_factory.mktemp("made")
    shared(study(), made)

    def copy() -> pathlib.Path:
        directory = tmp_path_factory.mktemp("study")
        shutil.copytree(made / "shared", directory / "shared")
        return directory

    return copy
