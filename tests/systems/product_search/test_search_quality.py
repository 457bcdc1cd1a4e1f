"""Quality is what training events say, good items what later ones do; weights are the best that keep the recall."""

import numpy as np
import pytest
import small_shop

from plum_jax.corpus.splits import FOLDS, TRAIN
from plum_jax.systems.product_search.quality import (
    Quality,
    QualitySearch,
    Tried,
    chosen,
    good_items,
    quality_statistics,
)


@pytest.fixture(scope="module")
def split():
    return small_shop.split()


def test_statistics_are_those_of_training_events(split):
    events = [[] for _ in range(small_shop.ITEMS)]
    for user in range(small_shop.USERS):
        rows = np.flatnonzero((split.corpus.events["user"].to_numpy() == user) & (split.fold == TRAIN))
        for place, row in enumerate(rows):
            events[split.corpus.events["item"][int(row)]].append((place / (len(rows) - 1), np.log(len(rows))))
    every = np.array([one for of_item in events for one in of_item])
    expected = np.array(
        [
            [np.log1p(len(one)), *((np.sum(one, axis=0) + 10 * every.mean(axis=0)) / (len(one) + 10))]
            for one in (np.array(of_item).reshape(-1, 2) for of_item in events)
        ]
    )
    expected -= expected.mean(axis=0)
    expected /= np.maximum(expected.std(axis=0), 1e-6)
    found = quality_statistics(split)
    np.testing.assert_allclose(found[:, :2], expected[:, :2], atol=1e-4)
    assert np.abs(found[:, 2]).max() < 1e-3  # all users have as many events: nothing to tell


def test_good_items_are_those_that_later_events_take_most(split):
    for fold in ("validation", "test"):
        item = split.corpus.events["item"].to_numpy()[split.fold == FOLDS[fold]]
        counts = {one: int((item == one).sum()) for one in range(small_shop.ITEMS)}
        good = good_items(split, fold)
        least = min(counts[one] for one in np.flatnonzero(good))
        assert all(counts[one] < least for one in np.flatnonzero(~good))
        assert small_shop.ITEMS // 5 <= good.sum() < small_shop.ITEMS // 2
    assert (good_items(split, "validation") != good_items(split, "test")).any()


def test_the_appended_vectors_add_the_weighed_statistics_to_the_score(split):
    random = np.random.default_rng(0)
    statistics, weights = quality_statistics(split), np.array([0.1, -0.2, 0.3], np.float32)
    items, searches = random.normal(size=(small_shop.ITEMS, 4)), random.normal(size=(3, 4))
    quality = Quality(statistics, weights)
    found = quality.of_searches(searches) @ quality.of_items(items).T
    np.testing.assert_allclose(found, searches @ items.T + statistics @ weights, rtol=1e-5)


def test_of_those_that_keep_the_recall_the_one_with_most_good_items_is_taken():
    rows = [Tried((0.0,), 0.100, 0.2), Tried((0.1,), 0.099, 0.3), Tried((0.2,), 0.098, 0.9), Tried((0.3,), 0.0995, 0.3)]
    assert chosen(rows, 0.99).weights == (0.1,)
    assert chosen(rows, 0.5).weights == (0.2,)
    assert chosen(rows, 1.0).weights == (0.0,)
    with pytest.raises(ValueError, match=r"expected 0 among the weights and recall_kept in \(0, 1\]"):
        QualitySearch(weights=(0.1,))
