"""Pairs: partners are co-watched in training, drawn as the formula says, and a batch is a function of its number."""

import numpy as np
import polars as pl
import pytest

from plum_jax.corpus.co_watch import co_watch_pairs
from plum_jax.semantic_ids.rqvae.pairs import CoWatched, ItemBatches

PAIRS = pl.DataFrame({"item_a": [0, 0, 2], "item_b": [1, 2, 3], "count": [6, 2, 4]})


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_partners_are_drawn_by_count_over_popularity(exponent):
    # Co-watches in all: item 0 has 8, item 1 6, item 2 6, item 3 4, item 4 none.
    co_watched = CoWatched.from_pairs(PAIRS, 5, exponent)
    draws, found = co_watched.draw(np.zeros(20_000, np.int64), np.random.default_rng(0))
    weights = np.array([0, 6 / 6**exponent, 2 / 6**exponent, 0, 0])
    np.testing.assert_allclose(np.bincount(draws, minlength=5) / 20_000, weights / weights.sum(), atol=0.015)
    of_two, _ = co_watched.draw(np.full(20_000, 2), np.random.default_rng(1))
    weights = np.array([2 / 8**exponent, 0, 0, 4 / 4**exponent, 0])
    np.testing.assert_allclose(np.bincount(of_two, minlength=5) / 20_000, weights / weights.sum(), atol=0.015)
    assert found.all()


def test_items_that_nobody_watched_have_no_partner():
    co_watched = CoWatched.from_pairs(PAIRS, 5, 1.0)
    draws, found = co_watched.draw(np.array([4, 3, 4]), np.random.default_rng(0))
    assert found.tolist() == [False, True, False]
    assert draws[1] == 2 and draws.min() >= 0 and draws.max() < 5
    nobody = CoWatched.from_pairs(PAIRS.head(0), 3, 1.0)
    assert not nobody.draw(np.arange(3), np.random.default_rng(0))[1].any()


def test_every_partner_is_a_training_co_watch(split):
    pairs = co_watch_pairs(split, window=2)
    known = set(zip(pairs["item_a"].to_list(), pairs["item_b"].to_list(), strict=True))
    values = np.arange(120, dtype=np.float32)[:, None]
    co_watched = CoWatched.from_pairs(pairs, 120, 1.0)
    batches = ItemBatches((values,), (np.ones(120, bool),), 30, seed=3, co_watched=co_watched)
    iterator = batches.make_iterator()
    seen = []
    for _ in range(8):
        batch = next(iterator)
        assert batch["block_0"].shape == (30, 2, 1) and batch["present_0"].shape == (30, 2)
        np.testing.assert_array_equal(batch["block_0"][:, :, 0], batch["item"])
        seen += batch["item"][:, 0].tolist()
        for (a, b), paired in zip(batch["item"].tolist(), batch["paired"].tolist(), strict=True):
            assert paired == ((min(a, b), max(a, b)) in known)
    assert sorted(seen) == sorted([*range(120)] * 2)  # each item once an epoch, however popular


def test_a_restored_iterator_goes_on_where_it_was():
    values = np.arange(50, dtype=np.float32)[:, None]
    batches = ItemBatches((values,), (np.ones(50, bool),), 8, seed=0, co_watched=CoWatched.from_pairs(PAIRS, 50, 1.0))
    first = batches.make_iterator()
    for _ in range(7):
        next(first)
    second = batches.make_iterator()
    second.set_state(first.get_state())
    for _ in range(3):
        expected, found = next(first), next(second)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
