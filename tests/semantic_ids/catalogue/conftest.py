"""A table of 600 items with a codec for each collision policy, and 400 new items of the same kind."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from shop_items import NEW, OLD, POLICIES, Items, corpus_of, draw, write_items

from plum_jax.semantic_ids.build import build_sid_table
from plum_jax.semantic_ids.residual_kmeans import ResidualKMeans


@pytest.fixture(scope="session")
def old_items() -> Items:
    return draw(OLD, seed=1, first=0)


@pytest.fixture(scope="session")
def new_items() -> Items:
    return draw(NEW, seed=2, first=OLD)


@pytest.fixture(scope="session")
def base_tables(old_items, tmp_path_factory) -> dict[str, pathlib.Path]:
    """Directory of the table of the old items, by collision policy; so crowded that many items meet."""
    split = corpus_of(old_items)
    directory = tmp_path_factory.mktemp("base")
    quantizer = ResidualKMeans(codebook_sizes=(12, 8, 64), iterations=10)
    for policy in POLICIES:
        build_sid_table(split, old_items.features, quantizer, policy, directory / policy)
    return {policy: directory / policy for policy in POLICIES}


@pytest.fixture
def in_files(new_items, tmp_path) -> Callable[[int], list[pathlib.Path]]:
    """The new items in so many files, whose names are in the order of the items."""

    def write(number: int) -> list[pathlib.Path]:
        parts = np.array_split(np.arange(NEW), number)
        folder = tmp_path / f"new_{number}"
        return [write_items(folder / f"part-{n:02d}.parquet", new_items.take(p)) for n, p in enumerate(parts)]

    return write
