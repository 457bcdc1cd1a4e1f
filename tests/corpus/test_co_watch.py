"""Co-watch pairs against a plain loop, PPMI against its formula, and both against held-out events."""

import collections

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_corpora import NUM_ITEMS, corpus_of, histories, with_held_out_items_hidden, with_leak

from plum_jax.corpus import co_watch
from plum_jax.corpus.leaks import LeakError
from plum_jax.corpus.splits import LeaveOneOut, SplitError


def split_of(drawn):
    try:
        return LeaveOneOut().split(corpus_of(drawn))
    except SplitError:
        assume(False)


def pairs_by_loop(split, window):
    counts = collections.Counter()
    training = split.training_events()
    for user in range(split.corpus.num_users):
        items = training.filter(user=user)["item"].to_list()
        for i in range(len(items)):
            for j in range(i + 1, min(i + window + 1, len(items))):
                if items[i] != items[j]:
                    counts[min(items[i], items[j]), max(items[i], items[j])] += 1
    return sorted((*pair, count) for pair, count in counts.items())


@settings(max_examples=60, deadline=None)
@given(histories(), st.integers(1, 10), st.sampled_from([1, 2, 3, 7, 1 << 20]), st.sampled_from([1, 5, 1 << 20]))
def test_pairs_equal_the_loop_whatever_the_chunks_and_passes(drawn, window, events_per_chunk, keys_per_pass):
    split = split_of(drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(co_watch, "EVENTS_PER_CHUNK", events_per_chunk)
        patch.setattr(co_watch, "KEYS_PER_PASS", keys_per_pass)
        pairs = co_watch.co_watch_pairs(split, window)
    assert pairs.rows() == pairs_by_loop(split, window)
    assert [str(dtype) for dtype in pairs.dtypes] == ["Int32", "Int32", "Int64"]


@settings(max_examples=30, deadline=None)
@given(histories())
def test_held_out_items_do_not_matter(drawn):
    split = split_of(drawn)
    assert co_watch.co_watch_pairs(split, 3).equals(co_watch.co_watch_pairs(with_held_out_items_hidden(split), 3))


def test_a_planted_leak_is_caught():
    split = LeaveOneOut().split(corpus_of([[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]]))
    for event in (3, 4):
        with pytest.raises(LeakError, match=f"co-watch pairs was given .* item 'i{event}'"):
            co_watch.co_watch_pairs(with_leak(split, event), 2)


def test_ppmi_is_the_formula():
    generator = np.random.default_rng(0)
    drawn = [[(int(item), time) for time, item in enumerate(generator.integers(0, NUM_ITEMS, 12))] for _ in range(4)]
    pairs = co_watch.co_watch_pairs(LeaveOneOut().split(corpus_of(drawn)), 2)
    counts = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for a, b, count in pairs.rows():
        counts[a, b] = counts[b, a] = count
    joint = counts / counts.sum()
    with np.errstate(divide="ignore"):
        expected = np.maximum(0, np.log(joint / np.outer(joint.sum(0), joint.sum(1))))
    matrix = co_watch.ppmi(pairs, NUM_ITEMS)
    np.testing.assert_allclose(matrix.toarray(), expected, atol=1e-12)
    assert (matrix != matrix.T).nnz == 0 and matrix.nnz == (expected > 1e-12).sum() > 0


def test_no_pairs_give_an_empty_matrix():
    split = LeaveOneOut().split(corpus_of([[(0, 1), (1, 2), (2, 3)]]))
    pairs = co_watch.co_watch_pairs(split, 5)
    assert pairs.height == 0 and co_watch.ppmi(pairs, NUM_ITEMS).nnz == 0


def test_a_window_of_nothing_is_refused():
    split = LeaveOneOut().split(corpus_of([[(0, 1), (1, 2), (2, 3)]]))
    with pytest.raises(ValueError, match="expected a co-watch window of at least 1, got 0"):
        co_watch.co_watch_pairs(split, 0)
