"""Coverage, effective items and vocabulary against plain counting, and their standard errors against repeated draws."""

import collections
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from plum_jax.evaluation.metrics.catalogue import Shown, coverage, effective_items, effective_vocabulary

lists = st.lists(st.lists(st.integers(0, 11), max_size=5, unique=True), min_size=1, max_size=12)


def ranked(rows, k=5):
    return np.array([[*row, *[-1] * (k - len(row))] for row in rows], np.int32)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(lists, st.integers(1, 5))
def test_by_counting(rows, k):
    shown = Shown(ranked(rows), k)
    counts = collections.Counter(item for row in rows for item in row[:k])
    total = sum(counts.values())
    assert coverage(shown, 12).value == pytest.approx(len(counts) / 12)
    if not total:
        assert effective_items(shown).value == effective_vocabulary(shown).value == 0
        return
    entropy = -sum(n / total * math.log(n / total) for n in counts.values())
    assert effective_items(shown).value == pytest.approx(math.exp(entropy))
    covered, needed = 0, 0
    for _, n in counts.most_common():
        if 100 * covered < 95 * total:
            covered, needed = covered + n, needed + 1
    assert effective_vocabulary(shown).value == needed


def test_even_lists_show_as_many_as_there_are_and_one_item_one():
    even = Shown(np.arange(400).reshape(100, 4), 4)
    assert effective_items(even).value == pytest.approx(400)
    assert effective_vocabulary(even).value == 380
    one = Shown(np.full((50, 1), 7), 1)
    assert effective_items(one).value == pytest.approx(1)
    assert effective_vocabulary(one).value == 1
    assert effective_items(one).error == coverage(one, 10).error == 0
    assert math.isnan(coverage(Shown(np.array([[1, 2]]), 2), 10).error)


def test_the_jackknife_is_that_of_leaving_each_user_out():
    rows = np.random.default_rng(0).integers(0, 30, (20, 1))
    left_out = [len(np.unique(np.delete(rows, user, axis=0))) for user in range(20)]
    error = math.sqrt(19 / 20 * ((left_out - np.mean(left_out)) ** 2).sum())
    assert coverage(Shown(rows, 1), 30).error == pytest.approx(error / 30)


def test_standard_errors_are_the_spread_over_draws_of_users():
    random = np.random.default_rng(0)
    chances = 1 / np.arange(1, 201)

    def draw():
        # A first item drawn by Zipf's law, and the next one beside it; every fifth list has one item only.
        first = random.choice(200, 400, p=chances / chances.sum())
        second = np.where(np.arange(400) % 5 == 0, -1, (first + 1) % 200)
        return Shown(np.stack([first, second], axis=1), 2)

    draws = [draw() for _ in range(120)]
    for measure in (lambda s: coverage(s, 200), effective_items, effective_vocabulary):
        found = [measure(shown) for shown in draws]
        spread = np.std([estimate.value for estimate in found], ddof=1)
        ratio = np.mean([estimate.error for estimate in found]) / spread
        assert 0.6 < ratio < 2, (measure, ratio)
