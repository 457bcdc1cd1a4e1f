"""Item histories as rows: every pair of neighbours once, context only from the user's own window."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_jax.feeds.histories import history_rows, latest_items
from plum_jax.feeds.packing import COLUMNS


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=13), min_size=1, max_size=9).filter(
        lambda users: any(len(user) > 1 for user in users)
    ),
    st.integers(1, 6),
    st.integers(0, 5),
)
def test_every_item_but_a_first_is_a_target_once_behind_its_own_history(users, history_length, more):
    histories = [np.array(user, np.int32) for user in users]
    rows = history_rows(histories, history_length, history_length + more, seed=0)
    assert {name: values.dtype for name, values in rows.items()} == COLUMNS
    expected = collections.Counter()
    for user in users:
        for place in range(1, len(user)):
            start = max(place - 1 - (history_length - 1 - (len(user) - 1 - place) % history_length), 0)
            expected[(*user[start:place], "->", user[place])] += 1
    found = collections.Counter()
    real = rows["decoder_segment_ids"] > 0
    assert np.array_equal(real, rows["decoder_loss_weights"] == 1)
    for row, place in zip(*np.nonzero(real), strict=True):
        own = rows["decoder_segment_ids"][row] == rows["decoder_segment_ids"][row, place]
        before = own & (np.arange(own.size) <= place)
        assert rows["decoder_positions"][row, place] == before.sum() - 1
        found[(*rows["decoder_input_tokens"][row, before], "->", rows["decoder_target_tokens"][row, place])] += 1
    assert found == expected


def test_what_teaches_nothing_or_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least two training events, found none"):
        history_rows([np.array([3])], 5, 5, seed=0)
    with pytest.raises(ValueError, match="expected history_length of at most row_length 4, got 5"):
        history_rows([np.arange(3)], 5, 4, seed=0)


def test_the_latest_items_are_read():
    items, lengths = latest_items([np.arange(5), np.arange(0), np.array([7])], 3)
    assert items.tolist() == [[2, 3, 4], [0, 0, 0], [7, 0, 0]] and lengths.tolist() == [3, 0, 1]
