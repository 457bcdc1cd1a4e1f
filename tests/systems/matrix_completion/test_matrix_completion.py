"""The factors are the matrix that the same method finds dense; the gap bounds how far it is from the optimum."""

import numpy as np
import polars as pl
import pytest
from random_split import random_split
from stages_of_split import stages_of_split

from plum_jax.corpus.leaks import LeakError
from plum_jax.corpus.splits import Split
from plum_jax.systems.matrix_completion import MatrixCompletion
from plum_jax.systems.matrix_completion.factors import complete, first_singular_value

SHAPE = (12, 9)
WEIGHT = 4.0


@pytest.fixture(scope="module")
def pairs():
    draw = np.random.default_rng(0)
    user, item = np.nonzero(draw.random(SHAPE) < 0.3)
    return user.astype(np.int32), item.astype(np.int32)


def objective(matrix, user, item):
    """Of a dense matrix, as the docstring has it."""
    weights, targets = np.ones(SHAPE), np.zeros(SHAPE)
    weights[user, item], targets[user, item] = WEIGHT, 1.0
    return 0.5 * np.sum(weights * (matrix - targets) ** 2), weights * (matrix - targets)


def dense_frank_wolfe(user, item, radius, steps):
    """The same steps with LAPACK's singular vectors, 64 bits."""
    matrix, gaps = np.zeros(SHAPE), []
    for _ in range(steps):
        _, gradient = objective(matrix, user, item)
        u, s, vt = np.linalg.svd(gradient)
        vertex = -radius * np.outer(u[:, 0], vt[0])
        gaps.append(np.sum(gradient * matrix) + radius * s[0])
        change = vertex - matrix
        weights = np.ones(SHAPE)
        weights[user, item] = WEIGHT
        matrix = matrix + np.clip(gaps[-1] / np.sum(weights * change**2), 0, 1) * change
    return matrix, np.array(gaps)


def test_factors_are_those_of_the_dense_method(pairs):
    found = complete(*pairs, SHAPE, radius=3.0, weight=WEIGHT, steps=8, tolerance=0.0, iterations=3000)
    matrix, gaps = dense_frank_wolfe(*pairs, 3.0, 8)
    np.testing.assert_allclose(found.users @ found.items.T, matrix, atol=2e-3)
    at_zero, _ = objective(np.zeros(SHAPE), *pairs)
    np.testing.assert_allclose(found.gaps, gaps / at_zero, rtol=2e-2, atol=1e-4)


def test_it_ends_near_the_optimum_within_the_ball_by_the_gap(pairs):
    radius, at_zero = 4.0, objective(np.zeros(SHAPE), *pairs)[0]
    found = complete(*pairs, SHAPE, radius=radius, weight=WEIGHT, steps=2000, tolerance=2e-3, iterations=30)
    assert len(found.gaps) < 2000 and found.gaps[-1] <= 2e-3 < found.gaps[-2]
    matrix = found.users @ found.items.T
    assert np.linalg.svd(matrix, compute_uv=False).sum() < radius + 1e-3
    best, _ = objective(dense_frank_wolfe(*pairs, radius, 3000)[0], *pairs)
    assert objective(matrix, *pairs)[0] - best < 2e-3 * at_zero


def test_the_first_singular_value_is_lapacks(pairs):
    matrix = np.zeros(SHAPE)
    matrix[pairs] = 1.0
    assert first_singular_value(*pairs, SHAPE) == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-5)


def test_lists_are_those_of_the_matrix_and_it_is_made_once(tmp_path, monkeypatch):
    split = random_split()
    stages, system = stages_of_split(split, tmp_path), MatrixCompletion(radius=2.0, steps=30)
    fitted = system.fit(stages, "completed")
    assert {"parameters", "rank", "gap", "train_seconds"} == set(fitted.facts)
    users = split.evaluation("test")
    ranking = fitted.rank(users, 4)
    with np.load(tmp_path / "systems" / "completed" / "factors.npz") as arrays:
        scores = arrays["users"] @ arrays["items"].T
    for row, user in enumerate(users.user):
        found = ranking.lists.items[row]
        np.testing.assert_allclose(scores[user, found], np.sort(scores[user])[::-1][:4], rtol=1e-5, atol=1e-6)
        assert not set(ranking.lists.unseen[row].tolist()) & set(users.history(row).tolist())
    monkeypatch.setattr("plum_jax.systems.matrix_completion.system.complete", None)
    assert system.fit(stages, "completed").fingerprint == fitted.fingerprint


def test_a_planted_leak_is_caught(tmp_path, monkeypatch):
    split = random_split()
    everything = split.corpus.events.with_row_index("event").with_columns(pl.col("event").cast(pl.Int64))
    monkeypatch.setattr(Split, "training_events", lambda self: everything)
    with pytest.raises(LeakError, match="matrix completion"):
        MatrixCompletion().fit(stages_of_split(split, tmp_path), "leaky")


def test_settings_that_cannot_be_are_one_clear_error():
    with pytest.raises(ValueError, match="MatrixCompletion: expected radius > 0, got -1"):
        MatrixCompletion(radius=-1)
