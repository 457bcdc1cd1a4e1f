"""Ages of last occurrences: by hand, packed as separate, and the same in training and in ranking."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_jax.model.repeats import AGES, age_bucket, last_occurrences, repeat_scores

HISTORIES = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=3)


def test_ages_have_buckets_of_powers_of_two():
    assert np.asarray(age_bucket(np.arange(9))).tolist() == [0, 1, 1, 2, 2, 2, 2, 3, 3]
    assert np.asarray(age_bucket(np.array([126, 127, 10_000]))).tolist() == [6, 7, AGES - 1]


@given(HISTORIES)
@settings(deadline=None, max_examples=40)
def test_packed_positions_know_their_own_history_alone(histories):
    """Each position of a row with several histories, item by item."""
    length = 28
    items, segments = np.zeros((1, length), np.int32), np.zeros((1, length), np.int32)
    items[0, : sum(map(len, histories))] = np.concatenate(histories)
    segments[0, : sum(map(len, histories))] = np.repeat(1 + np.arange(len(histories)), [len(h) for h in histories])
    last, age = (np.asarray(x) for x in last_occurrences(items, segments))
    start = 0
    for history in histories:
        for place in range(len(history)):
            found = {}
            for s in np.flatnonzero(last[0, start + place]):
                assert items[0, s] not in found, "one occurrence of an item"
                found[int(items[0, s])] = int(age[0, start + place, s])
            seen = history[: place + 1]
            expected = {item: int(np.log2(seen[::-1].index(item) + 1)) for item in set(seen)}
            assert found == expected
        start += len(history)
    assert not last[0, start:].any(), "padding has seen nothing"


@given(HISTORIES)
@settings(deadline=None, max_examples=40)
def test_ranking_knows_what_training_knew(histories):
    """A whole history's events, against the last position of the same history in a row."""
    worth = np.linspace(-3, 4, AGES).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
    added = repeat_scores(worth, np.concatenate(histories), offsets)
    for start, history in zip(offsets[:-1], histories, strict=True):
        last, age = last_occurrences(np.array([history], np.int32), np.ones((1, len(history)), np.int32))
        expected = np.where(np.asarray(last)[0, -1], worth[np.asarray(age)[0, -1]], 0.0)
        np.testing.assert_array_equal(added[start : start + len(history)], expected)
