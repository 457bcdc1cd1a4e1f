"""nDCG of graded judgements is scikit-learn's, and ties count with their mean."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from plum_jax.evaluation.metrics.graded import graded_ndcg, recall_of_relevant


def test_it_is_scikit_learns():
    random = np.random.default_rng(0)
    for size in (2, 5, 30):
        for _ in range(20):
            gains = random.integers(0, 4, size).astype(float)
            gains[0] = 1.0
            scores = random.integers(0, 6, size).astype(float)  # with ties
            for k in (1, 3, 10):
                assert graded_ndcg(scores, gains, k) == pytest.approx(ndcg_score([gains], [scores], k=k))


def test_without_an_order_it_is_the_mean_of_all_orders():
    gains = np.array([3.0, 0.0, 1.0, 0.5])
    orders = [graded_ndcg(-np.array(order, float), gains, 2) for order in itertools.permutations(range(4))]
    assert graded_ndcg(np.zeros(4), gains, 2) == pytest.approx(np.mean(orders))


def test_nothing_to_find_is_missing_and_not_zero():
    assert np.isnan(graded_ndcg(np.ones(3), np.zeros(3), 10))
    assert np.isnan(recall_of_relevant(np.arange(10), np.zeros(0, int), 10))
    assert recall_of_relevant(np.array([4, 2, 9, 1]), np.array([9, 2, 7, 8]), 3) == 0.5
    with pytest.raises(ValueError, match="a list of at least 5 items, got 4"):
        recall_of_relevant(np.arange(4), np.arange(2), 5)
    with pytest.raises(ValueError, match="as many scores as gains of at least 0"):
        graded_ndcg(np.ones(2), np.array([-1.0, 1.0]), 2)
