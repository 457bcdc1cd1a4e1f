"""Metrics against figures worked out by hand, and the bootstrap against the theory of the mean."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from plum_jax.retrieval import metrics

LISTS = np.array([[4, 2, 7], [1, 3, -1], [5, 6, 0], [-1, -1, -1]], np.int32)
TARGETS = np.array([2, 1, 9, 4], np.int32)


def test_by_hand():
    unseen = np.array([[2, 7, 8], [3, 9, -1], [6, 0, 9], [4, -1, -1]], np.int32)
    found = metrics.ranking_metrics(metrics.RankedItems(LISTS, unseen), TARGETS, (1, 3), num_items=10)
    second = 1 / math.log2(3)  # the gain of the second place
    assert found["recall@1"] == pytest.approx(1 / 4)
    assert found["recall@3"] == pytest.approx(2 / 4)
    assert found["ndcg@3"] == pytest.approx((second + 1) / 4)
    assert found["recall@1_unseen"] == pytest.approx(2 / 4)
    assert found["ndcg@3_unseen"] == pytest.approx((1 + 0 + 1 / math.log2(4) + 1) / 4)
    assert found["recall@1_se"] == pytest.approx(math.sqrt((3 * 0.25**2 + 0.75**2) / 3 / 4))
    assert found["coverage@1"] == pytest.approx(3 / 10), "4, 1 and 5; -1 is no item"
    assert found["coverage@3"] == pytest.approx(8 / 10)
    assert found["coverage@1_unseen"] == pytest.approx(4 / 10)


def test_targets_that_no_training_event_has_are_judged_apart():
    lists = metrics.RankedItems(LISTS, LISTS)
    cold = np.isin(np.arange(10), [1, 9])  # targets of the second and third user: found at the first place, not found
    found = metrics.ranking_metrics(lists, TARGETS, (1, 3), num_items=10, cold_items=cold)
    assert found["cold_users"] == 2
    assert found["cold_recall@3"] == pytest.approx(1 / 2)
    assert found["recall@3"] == pytest.approx(2 / 4)
    without = metrics.ranking_metrics(lists, TARGETS, (1, 3), num_items=10, cold_items=np.zeros(10, bool))
    assert not [name for name in without if "cold" in name], "missing is missing, never 0"


def test_a_missing_target_never_matches_the_end_of_a_list():
    ranks = metrics.target_ranks(LISTS, np.array([-1, -1, -1, -1]))
    assert (ranks == metrics.NOT_FOUND).all()


def test_lists_that_would_understate_a_metric_are_refused():
    lists = metrics.RankedItems(LISTS, LISTS)
    with pytest.raises(ValueError, match=r"expected lists \[4, at least 10\]"):
        metrics.ranking_metrics(lists, TARGETS, (5, 10), num_items=10)
    with pytest.raises(ValueError, match=r"expected lists \[3, at least 3\]"):
        metrics.ranking_metrics(lists, TARGETS[:3], (3,), num_items=10)


def test_no_user_has_no_mean_and_one_user_no_standard_error():
    with pytest.raises(ValueError, match=r"at least one user to average recall@5"):
        metrics.summarise({"recall@5": np.zeros(0)})
    assert math.isnan(metrics.summarise({"recall@5": np.ones(1)})["recall@5_se"])


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.permutations(range(8)), st.integers(0, 9), st.integers(1, 8))
def test_recall_is_membership_and_ndcg_falls_with_the_rank(order, target, k):
    ranks = metrics.target_ranks(np.array([order]), np.array([target]))
    values = metrics.per_user_metrics(ranks, (k,))
    assert values[f"recall@{k}"][0] == (target in order[:k])
    expected = 1 / math.log2(order.index(target) + 2) if target in order[:k] else 0.0
    assert values[f"ndcg@{k}"][0] == pytest.approx(expected)


def test_bootstrap_interval_is_that_of_the_normal_law_for_many_users():
    random = np.random.default_rng(0)
    base = random.random(4000)
    difference = np.where(random.random(4000) < 0.1, 1.0, 0.0)
    found = metrics.paired_bootstrap(base + difference, base, samples=4000)
    half = 1.96 * difference.std() / math.sqrt(4000)
    assert found.mean == pytest.approx(difference.mean())
    assert found.low == pytest.approx(difference.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(difference.mean() + half, abs=0.1 * half)


def test_bootstrap_pairs_users():
    values = np.random.default_rng(1).random(50)
    assert metrics.paired_bootstrap(values + 0.25, values) == pytest.approx((0.25, 0.25, 0.25))
    with pytest.raises(ValueError, match="the same users"):
        metrics.paired_bootstrap(values, values[1:])
