"""Nearest items: the exact lists below a size, nearly those above, seen items removed in both."""

import numpy as np
import pytest

from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.nearest import Neighbours


def made(users, items, width):
    random = np.random.default_rng(0)
    vectors = [random.normal(size=(n, width)).astype(np.float32) for n in (users, items)]
    lengths = random.integers(0, 9, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    history = random.integers(0, items, offsets[-1]).astype(np.int32)
    number = np.arange(users, dtype=np.int32)
    return *vectors, EvaluationSet("test", number, number, number.astype(np.int64), history, history * 0, offsets)


def test_a_large_catalogue_is_searched_nearly_as_exactly_as_a_small_one():
    users, items, evaluation = made(40, 3000, 8)
    exact, scores = Neighbours().rank(users, items, evaluation, 10)
    near, near_scores = Neighbours(exact_below=1).rank(users, items, evaluation, 10)
    for ours, theirs in zip(near, exact, strict=True):
        assert np.mean([np.isin(a, b).mean() for a, b in zip(ours, theirs, strict=True)]) > 0.95
    found = np.einsum("UKD,UD->UK", items[near.unseen], users)
    np.testing.assert_allclose(near_scores, found, rtol=1e-4, atol=1e-5)
    assert (np.diff(near_scores, axis=1) <= 1e-5).all() and scores.shape == near_scores.shape
    for row in range(40):
        assert not np.isin(near.unseen[row], evaluation.history(row)).any()


def test_lists_end_where_items_do():
    users, items, evaluation = made(3, 5, 4)
    near, _ = Neighbours(exact_below=1).rank(users, items, evaluation, 8)
    assert (near.items[:, 5:] == -1).all() and set(near.items[0][near.items[0] >= 0]) <= set(range(5))


def test_vectors_that_are_not_finite_are_refused():
    users, items, evaluation = made(3, 5, 4)
    items[2, 1] = np.nan
    with pytest.raises(ValueError, match="expected finite vectors of items, got 1 that are not"):
        Neighbours().rank(users, items, evaluation, 2)
