"""The small recommender of `tests/retrieval/tiny_world.py`, made once."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "retrieval"))


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    from tiny_world import make_world

    return make_world(tmp_path_factory.mktemp("pieces"))
