"""Metrics of the target's place against figures worked out by hand, and apart for cold items and by popularity."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from plum_jax.evaluation import metrics
from plum_jax.evaluation.metrics.judge import popularity_deciles
from plum_jax.evaluation.metrics.ranking import per_user_metrics, summarise

LISTS = np.array([[4, 2, 7], [1, 3, -1], [5, 6, 0], [-1, -1, -1]], np.int32)
UNSEEN = np.array([[2, 7, 8], [3, 9, -1], [6, 0, 9], [4, -1, -1]], np.int32)
TARGETS = np.array([2, 1, 9, 4], np.int32)


def judged(lists, targets=TARGETS, ks=(1, 3), **catalogue):
    return metrics.ranking_metrics(lists, targets, ks, metrics.Catalogue(10, **catalogue))


def test_by_hand():
    found = judged(metrics.RankedItems(LISTS, UNSEEN))
    second = 1 / math.log2(3)  # the gain of the second place
    assert found["users"] == 4
    assert found["recall@1"] == pytest.approx(1 / 4)
    assert found["recall@3"] == pytest.approx(2 / 4)
    assert (found["hits@1"], found["hits@3"], found["hits@3_unseen"]) == (1, 2, 3)
    assert found["ndcg@3"] == pytest.approx((second + 1) / 4)
    assert found["mrr@3"] == pytest.approx((1 / 2 + 1) / 4)
    assert found["mrr@1"] == pytest.approx(1 / 4), "a second place is none of the first one"
    assert found["recall@1_unseen"] == pytest.approx(2 / 4)
    assert found["ndcg@3_unseen"] == pytest.approx((1 + 0 + 1 / math.log2(4) + 1) / 4)
    assert found["mrr@3_unseen"] == pytest.approx((1 + 0 + 1 / 3 + 1) / 4)
    assert found["recall@1_se"] == pytest.approx(math.sqrt((3 * 0.25**2 + 0.75**2) / 3 / 4))
    assert found["coverage@1"] == pytest.approx(3 / 10), "4, 1 and 5; -1 is no item"
    assert found["coverage@3"] == pytest.approx(8 / 10)
    assert found["coverage@1_unseen"] == pytest.approx(4 / 10)


def test_targets_that_no_training_event_has_are_judged_apart():
    lists = metrics.RankedItems(LISTS, LISTS)
    cold = np.isin(np.arange(10), [1, 9])  # targets of the second and third user: found at the first place, not found
    found = judged(lists, cold_items=cold)
    assert found["cold_users"] == 2
    assert found["cold_recall@3"] == pytest.approx(1 / 2)
    assert found["cold_hits@3"] == 1
    assert found["recall@3"] == pytest.approx(2 / 4)
    without = judged(lists, cold_items=np.zeros(10, bool))
    assert not [name for name in without if "cold" in name], "missing is missing, never 0"


def test_hits_by_popularity_add_up_to_all_hits():
    random = np.random.default_rng(0)
    popularity = random.geometric(0.05, 200) * (np.arange(200) % 9 > 0)
    targets = random.choice(200, 500, p=(popularity + 9) / (popularity + 9).sum())
    lists = np.stack([random.permutation(200)[:20] for _ in targets])
    cold = popularity == 0
    found = metrics.ranking_metrics(
        metrics.RankedItems(lists, lists), targets, (5, 20), metrics.Catalogue(200, cold, popularity)
    )
    deciles = range(1, 11)
    assert sum(found[f"decile_{d}_users"] for d in deciles) + found["cold_users"] == 500
    assert sum(found[f"decile_{d}_hits@20"] for d in deciles) + found["cold_hits@20"] == found["hits@20"] > 10
    assert "decile_1_recall@5" not in found, "the longest lists alone: the others would have hardly a hit"
    brute_force = sorted((-count, item) for item, count in enumerate(popularity) if count)
    first_tenth = [item for count, item in brute_force if -count >= -brute_force[-(-len(brute_force) // 10) - 1][0]]
    of_first = [row for row, target in enumerate(targets) if target in first_tenth]
    assert found["decile_1_users"] == len(of_first)
    assert found["decile_1_recall@20"] == pytest.approx(np.mean([targets[row] in lists[row] for row in of_first]))


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(st.lists(st.integers(0, 12), min_size=1, max_size=60))
def test_deciles_are_tenths_of_the_items_and_keep_ties_together(counts):
    popularity = np.array(counts)
    decile = popularity_deciles(popularity)
    warm = int((popularity > 0).sum())
    for count, found in zip(counts, decile, strict=True):
        more_popular = sum(other > count for other in counts)
        assert found == (1 + 10 * more_popular // warm if count else 0)
    if len(set(counts)) == len(counts) and warm >= 10:
        sizes = np.bincount(decile, minlength=11)[1:]
        assert sizes.max() - sizes.min() <= 1


def test_a_missing_target_never_matches_the_end_of_a_list():
    ranks = metrics.target_ranks(LISTS, np.array([-1, -1, -1, -1]))
    assert (ranks == metrics.NOT_FOUND).all()


def test_lists_that_would_understate_a_metric_are_refused():
    lists = metrics.RankedItems(LISTS, LISTS)
    with pytest.raises(ValueError, match=r"expected lists \[4, at least 10\]"):
        judged(lists, ks=(5, 10))
    with pytest.raises(ValueError, match=r"expected lists \[3, at least 3\]"):
        judged(lists, TARGETS[:3], ks=(3,))


def test_no_user_has_no_mean_and_one_user_no_standard_error():
    with pytest.raises(ValueError, match=r"at least one user to average recall@5"):
        summarise({"recall@5": np.zeros(0)})
    assert math.isnan(summarise({"recall@5": np.ones(1)})["recall@5_se"])


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.permutations(range(8)), st.integers(0, 9), st.integers(1, 8))
def test_recall_is_membership_and_gains_fall_with_the_rank(order, target, k):
    ranks = metrics.target_ranks(np.array([order]), np.array([target]))
    values = per_user_metrics(ranks, (k,))
    found = target in order[:k]
    assert values[f"recall@{k}"][0] == found
    assert values[f"ndcg@{k}"][0] == pytest.approx(1 / math.log2(order.index(target) + 2) if found else 0.0)
    assert values[f"mrr@{k}"][0] == pytest.approx(1 / (order.index(target) + 1) if found else 0.0)
