"""Placement of new items against the plainest program that follows the stated rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_jax.corpus.features import ItemFeatures
from plum_jax.semantic_ids.catalogue.placement import place
from plum_jax.semantic_ids.codec import Codec
from plum_jax.semantic_ids.table import SidTable


class NoEncoder:
    """Placement asks a codec for its codebooks only."""

    inputs = ()

    def __call__(self, features: ItemFeatures) -> np.ndarray:
        raise AssertionError(features)

    def to_arrays(self) -> tuple[dict, dict]:
        return {}, {}


def codec_of(sizes: tuple[int, ...]) -> Codec:
    return Codec(NoEncoder(), tuple(np.zeros((size, 2), np.float32) for size in sizes))


def base_table(rng: np.random.Generator, sizes: tuple[int, ...], num_items: int, policy: str, digits: int) -> SidTable:
    """A random table as its policy leaves it: SIDs unique, digits without gaps."""
    codes = np.stack([rng.integers(0, size, num_items) for size in sizes], axis=1)
    if policy == "reassign":
        codes = np.unique(codes, axis=0)
        codes = codes[rng.permutation(len(codes))]
    if policy == "extra_digit":
        digit: dict[tuple, int] = {}
        rows = []
        for row in codes.tolist():
            digit[tuple(row)] = digit.get(tuple(row), -1) + 1
            if digit[tuple(row)] < digits:
                rows.append([*row, digit[tuple(row)]])
        codes, sizes = np.asarray(rows), (*sizes, digits)
    ids = [f"old{row}" for row in range(len(codes))]
    return SidTable.create(codes, sizes, ids, popularity=rng.random(len(codes)), collision_policy=policy)


def place_one_by_one(base: SidTable, codes: np.ndarray, distances: np.ndarray) -> tuple[list[tuple], list[int], int]:
    """Codes, ranks and the number of crowded items, by the words of the rules."""
    held = [tuple(row) for row in base.codes.tolist()]
    placed, ranks, crowded = [], [], 0
    for row, sid in enumerate(map(tuple, codes.tolist())):
        if base.collision_policy == "extra_digit":
            free = [digit for digit in range(base.codebook_sizes[-1]) if (*sid, digit) not in held]
            crowded += not free
            sid = (*sid, free[0] if free else base.codebook_sizes[-1] - 1)
        elif base.collision_policy == "reassign" and sid in held:
            free = [code for code in range(base.codebook_sizes[-1]) if (*sid[:-1], code) not in held]
            crowded += not free
            if free:
                sid = (*sid[:-1], min(free, key=lambda code: distances[row, code]))
        ranks.append(held.count(sid))
        held.append(sid)
        placed.append(sid)
    return placed, ranks, crowded


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.sampled_from([(3,), (2, 3), (3, 2, 4), (1, 1, 5)]),
    policy=st.sampled_from(["keep", "extra_digit", "reassign"]),
    piece=st.integers(1, 7),
)
def test_items_are_placed_as_one_by_one(seed, sizes, policy, piece):
    rng = np.random.default_rng(seed)
    base = base_table(rng, sizes, int(rng.integers(1, 15)), policy, digits=int(rng.integers(1, 4)))
    codes = np.stack([rng.integers(0, size, int(rng.integers(0, 25))) for size in sizes[:1]], axis=1)
    codes = np.concatenate([codes, *(rng.integers(0, size, (len(codes), 1)) for size in sizes[1:])], axis=1)
    codes = codes.astype(np.int32)
    distances = rng.random((len(codes), sizes[-1])).astype(np.float32)

    def pieces(rows: np.ndarray):
        assert (np.diff(rows) > 0).all()
        for start in range(0, len(rows), piece):
            yield rows[start : start + piece], distances[rows[start : start + piece]]

    placement = place(base, codec_of(sizes), codes, pieces)
    placed, ranks, crowded = place_one_by_one(base, codes, distances)
    assert list(map(tuple, placement.codes.tolist())) == placed
    assert placement.item_rank.tolist() == ranks
    assert placement.report.get("crowded_items", 0) == crowded
    old = [tuple(row) for row in base.codes[:, : len(sizes)].tolist()]
    new = list(map(tuple, codes.tolist()))
    assert placement.report["collided_items"] == sum(sid in old + new[:row] for row, sid in enumerate(new))
    assert placement.report["unshared_items"] == sum((old + new).count(sid) == 1 for sid in new)


@pytest.mark.parametrize("policy", ["keep", "extra_digit", "reassign"])
def test_only_rows_under_contested_prefixes_are_measured(policy):
    base = base_table(np.random.default_rng(0), (2, 3), 1, policy, digits=2)
    free = np.array([[1 - base.codes[0, 0], 0], [1 - base.codes[0, 0], 1]], np.int32)
    meeting = base.codes[:, :2]
    asked: list[int] = []

    def pieces(rows: np.ndarray):
        asked.extend(rows.tolist())
        yield rows, np.zeros((len(rows), 3), np.float32)

    place(base, codec_of((2, 3)), np.concatenate([free, meeting]), pieces)
    assert asked == ([2] if policy == "reassign" else [])
