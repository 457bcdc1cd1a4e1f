"""Items that were not in training take the mean row of their nearest in training."""

import dataclasses

import numpy as np
import pytest

from plum_jax.systems.item_history.ranking import mean_of_nearest


def test_the_nearest_are_those_of_greatest_cosine():
    rng = np.random.default_rng(0)
    rows, content = (rng.normal(size=(600, width)).astype(np.float32) for width in (5, 4))
    new = rng.random(600) < 0.5  # more than are compared at a time
    content[np.flatnonzero(new)[7]] = 0.0
    found = mean_of_nearest(rows, content, new)
    for place, item in enumerate(np.flatnonzero(new)):
        cosine = content @ content[item] / np.linalg.norm(content, axis=1).clip(1e-9)
        near = [other for other in np.argsort(-cosine, kind="stable") if not new[other]][:3]
        expected = rows[near].mean(axis=0) if place != 7 else np.zeros(5)
        np.testing.assert_allclose(found[place], expected, atol=1e-6)


@pytest.mark.parametrize("new", [[3], [3, 20, 21]])
def test_a_new_item_is_its_content_and_the_row_of_others(fitted, new):
    ranker, rows = fitted.ranker, np.asarray(fitted.params["items"]["ids"])
    before, in_training = ranker.vectors(fitted.params), np.ones(48, bool)
    in_training[new] = False
    found = dataclasses.replace(ranker, known=dataclasses.replace(ranker.known, in_training=in_training)).vectors(
        fitted.params
    )
    taken = mean_of_nearest(rows, ranker.known.features, ~in_training)
    np.testing.assert_allclose(found[new], (before - rows)[new] + taken, atol=1e-5)
    np.testing.assert_array_equal(found[in_training], before[in_training])


def test_a_new_item_is_ranked_by_the_dense_head_alone(stages, fitted):
    """Others' scores have both parts, its own the second: exactly, where every item is a candidate."""
    test, in_training = stages.split.evaluation("test").take(np.arange(12)), np.ones(48, bool)
    in_training[[3, 20]] = False
    ranker = dataclasses.replace(fitted.ranker, known=dataclasses.replace(fitted.ranker.known, in_training=in_training))
    ranking = ranker.rank(fitted.params, test, 48)
    every = np.tile(np.arange(48), (12, 1))
    dense, levels = ranker.parts(fitted.params, test, every)
    scores = np.where(in_training, 0.5 * dense + 0.5 * levels.sum(axis=-1), dense)
    for row in range(12):
        assert ranking.lists.items[row].tolist() == np.argsort(-scores[row], kind="stable").tolist()
