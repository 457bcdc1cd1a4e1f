"""Batches by length: every row once an epoch, lengths near each other, and a state that goes on."""

import numpy as np
import pytest

from plum_jax.feeds.length_batches import LengthBatches

LENGTHS = np.random.default_rng(0).integers(3, 40, 103)


def test_an_epoch_has_every_row_once_but_those_of_a_last_batch():
    batches = LengthBatches(LENGTHS, 8, seed=1, window=4)
    order = batches.order(0)
    assert order.shape == (12, 8) and len(set(order.ravel())) == 96
    assert not np.array_equal(order, batches.order(1)) and np.array_equal(order, batches.order(0))


def test_rows_of_a_window_are_cut_by_their_length():
    order = LengthBatches(LENGTHS, 8, seed=1, window=4).order(0)
    for start in range(0, 12, 4):
        window = [LENGTHS[batch] for batch in order[start : start + 4]]
        window.sort(key=lambda lengths: (lengths.min(), lengths.max()))
        for before, behind in zip(window, window[1:], strict=False):
            assert before.max() <= behind.min()


def test_an_iterator_goes_on_where_its_state_was_taken():
    batches = LengthBatches(LENGTHS, 8, seed=1)
    iterator = batches.make_iterator()
    for _ in range(11):
        next(iterator)
    state, expected = iterator.get_state(), [next(iterator)["row"] for _ in range(3)]
    other = batches.make_iterator()
    other.set_state(state)
    for batch in expected:
        np.testing.assert_array_equal(next(other)["row"], batch)


def test_more_rows_of_a_batch_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="expected at least self.batch_size=9 rows, got 3"):
        LengthBatches(np.ones(3, np.int32), 9)
