"""One trained item-level model for all tests of its room."""

import dataclasses

import pytest
from small_item_history import DATA, SYSTEM


@pytest.fixture(scope="package")
def stages(tmp_path_factory):
    return DATA.stages(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="package")
def fitted(stages):
    return SYSTEM.fit(stages, "item_history")


@pytest.fixture(scope="package")
def without_fields(stages):
    return dataclasses.replace(SYSTEM, fields=()).fit(stages, "without_fields")


@pytest.fixture
def data():
    return DATA


@pytest.fixture
def system():
    return SYSTEM
