"""One trained trunk for all tests of its room."""

import pytest
from small_trunk import DATA, TRUNK


@pytest.fixture(scope="package")
def run(tmp_path_factory):
    return DATA.stages(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="package")
def fitted(run):
    return TRUNK.fit(run, "trunk")


@pytest.fixture(scope="package")
def batch(run, fitted):
    return next(TRUNK.feed(run.split, fitted.reader.known).make_iterator())
