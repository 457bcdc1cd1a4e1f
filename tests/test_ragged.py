"""Ragged arrays against plain lists."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_jax import ragged

rows = st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=6)


def as_lists(value: ragged.Ragged) -> list[list[int]]:
    return [row.tolist() for row in value.rows()]


def from_lists(lists: list[list[int]]) -> ragged.Ragged:
    return ragged.from_rows([np.array(row, np.int32) for row in lists])


@given(rows, st.data())
@settings(max_examples=50, deadline=None)
def test_join_and_group_are_those_of_lists(first, data):
    second = data.draw(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=len(first), max_size=len(first)))
    joined = ragged.join([from_lists(first), from_lists(second), ragged.repeated([7, 7], len(first))])
    assert as_lists(joined) == [a + b + [7, 7] for a, b in zip(first, second, strict=True)]

    counts = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    counts.append(max(0, len(first) - sum(counts)))
    counts = [min(count, max(0, len(first) - sum(counts[:i]))) for i, count in enumerate(counts)]
    expected = [sum(first[sum(counts[:i]) : sum(counts[: i + 1])], []) for i in range(len(counts))]
    assert as_lists(from_lists(first).grouped(np.array(counts))) == expected
