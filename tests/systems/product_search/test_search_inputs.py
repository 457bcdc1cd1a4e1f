"""What the towers read is what it says: pasts without what is held out, neighbours, categories; draws and schedules."""

import collections
import dataclasses

import numpy as np
import pytest
import small_shop

from plum_jax.corpus.splits import FOLDS, TRAIN
from plum_jax.encoders.token_rows import TokenRows
from plum_jax.queries.category_paths import CategoryQueries, ItemQueries
from plum_jax.systems.product_search.feed import Negatives, SearchFeed
from plum_jax.systems.product_search.inputs import Queries, evaluation_searches, training_searches
from plum_jax.systems.product_search.items import categories_of, graph_neighbours
from plum_jax.systems.product_search.places import Location


@pytest.fixture(scope="module")
def split():
    return small_shop.split()


@pytest.fixture(scope="module")
def queries(split):
    return CategoryQueries("path").of(split.corpus)


def pasts(split, queries, user, item, before):
    """By definition: the items of a user's earlier events, newest first, and their queries unless held out."""
    events = split.corpus.events["item"].to_numpy()[split.corpus.history_offsets[user] :][:before][::-1][:3]
    of_items = [1 + queries.of_item[i] if queries.fold[queries.of_item[i]] == TRAIN else 0 for i in events]
    filled = [0] * (3 - len(events))
    return [*(1 + events), *filled], [*of_items, *filled]


def test_a_search_knows_its_users_past_and_no_query_that_is_held_out(split, queries):
    places = np.arange(small_shop.USERS, dtype=np.int32)
    found = training_searches(split, queries, places, history=3)
    assert (queries.fold[found.query] == TRAIN).all() and (found.query == queries.of_item[found.target]).all()
    rows = iter(range(len(found)))
    for user in range(small_shop.USERS):
        first = split.corpus.history_offsets[user]
        for place in range(small_shop.EVENTS - 2):  # the last two are held out
            item = split.corpus.events["item"][int(first + place)]
            if queries.fold[queries.of_item[item]] == TRAIN:
                row = next(rows)
                expected = pasts(split, queries, user, item, place)
                assert found.target[row] == item and found.place[row] == user
                assert (found.past_items[row].tolist(), found.past_queries[row].tolist()) == expected
    assert next(rows, None) is None
    users = split.evaluation("test")
    later = evaluation_searches(users, queries, places, history=3)
    for row, user in enumerate(users.user):
        expected = pasts(split, queries, user, users.target_item[row], small_shop.EVENTS - 1)
        assert (later.past_items[row].tolist(), later.past_queries[row].tolist()) == expected
    read = {number - 1 for number in [*found.past_queries.ravel(), *later.past_queries.ravel()] if number}
    assert {queries.fold[number] for number in read} == {TRAIN}


def test_neighbours_are_the_items_that_two_users_at_least_take_together(split):
    together = collections.Counter()
    for user in range(small_shop.USERS):
        first = split.corpus.history_offsets[user]
        items = split.corpus.events["item"].to_numpy()[first : first + small_shop.EVENTS - 2]
        for a in range(len(items)):
            for b in range(a + 1, min(a + 3, len(items))):
                if items[a] != items[b]:
                    together[items[a], items[b]] += 1
                    together[items[b], items[a]] += 1
    found = graph_neighbours(split, window=2, count=4)
    for item in range(small_shop.ITEMS):
        mine = sorted((-times, other) for (one, other), times in together.items() if one == item and times > 1)
        expected = [1 + other for _, other in mine[:4]]
        assert found[item].tolist() == expected + [0] * (4 - len(expected))


def test_what_a_query_says_is_no_category_of_its_item(split, queries):
    found, number = categories_of(split.corpus, "tags", queries)
    assert number == 1 + len(small_shop.MAKERS) and not found[:, 1].any()
    makers = np.arange(small_shop.ITEMS) % len(small_shop.MAKERS)
    assert all(len(set(found[makers == maker, 0])) == 1 for maker in range(4)) and found[:, 0].min() == 1
    nothing = ItemQueries(queries.texts, np.full_like(queries.of_item, -1), queries.fold)
    assert categories_of(split.corpus, "tags", nothing)[1] == 1 + len(small_shop.MAKERS) + len(small_shop.KINDS)
    single, number = categories_of(split.corpus, "country", queries)
    assert number == 3 and (single[:, 0] > 0).all()
    with pytest.raises(
        ValueError, match=r"among \['tags', 'country'\] of corpus 'small search' as categories, got 'x'"
    ):
        categories_of(split.corpus, "x", queries)


def test_users_and_items_of_one_place_have_one_number(split):
    users, items, count = Location().numbers(split.corpus)
    assert count == 3 and users[0] == 0 and (users[1:] == 1 + np.arange(1, small_shop.USERS) % 4 // 2).all()
    assert (items == 1 + np.arange(small_shop.ITEMS) % 4 // 2).all()
    with pytest.raises(ValueError, match="corpus 'small search' has no 'city': expected one of"):
        Location(of_items="city").numbers(split.corpus)


@pytest.fixture(scope="module")
def feed(split, queries):
    found = training_searches(split, queries, np.zeros(small_shop.USERS, np.int32), history=2)
    texts = Queries(TokenRows(np.ones((10, 2), np.int32), np.ones(10, np.int32)), np.ones((10, 1), np.int32))
    candidates = np.flatnonzero(queries.fold[queries.of_item] == TRAIN).astype(np.int32)
    made = SearchFeed.of(found, texts, Negatives(uniform=2), candidates, small_shop.ITEMS, batch_size=64, seed=3)
    return dataclasses.replace(made, steps=20)


def test_hard_negatives_come_linearly_after_the_uniform_ones(feed):
    weights = [batch["hard_weight"] for batch, _ in zip(feed.make_iterator(), range(20), strict=False)]
    assert all((one == one[0]).all() for one in weights)
    shares = np.array([one[0] for one in weights])
    assert not shares[:4].any() and shares[-1] == pytest.approx(0.8)
    np.testing.assert_allclose(np.diff(shares[5:]), 0.8 / (0.8 * 19), rtol=1e-4)
    assert Negatives(hard=0.0).hard_weight(19, 20) == 0
    for wrong in ({"uniform": 0}, {"warmup": 1.0}, {"hard": 1.5}):
        with pytest.raises(ValueError, match="expected a uniform draw at least"):
            Negatives(**wrong)


def test_the_expected_count_in_a_pool_is_that_of_many_pools(feed, queries):
    counted, pools = np.zeros(small_shop.ITEMS), 300
    for batch, _ in zip(feed.make_iterator(), range(pools), strict=False):
        ids = np.concatenate([batch["target"], batch["uniform"].ravel()])
        counted += np.bincount(ids, minlength=small_shop.ITEMS)
        expected = np.concatenate([batch["target_log_count"], batch["uniform_log_count"].ravel()])
        np.testing.assert_array_equal(expected, feed.log_count[ids])
    held_out = queries.fold[queries.of_item] == FOLDS["test"]
    assert not counted[held_out].any() and counted[~held_out].any()
    there = counted > 0
    np.testing.assert_allclose(counted[there] / pools, np.exp(feed.log_count[there]), rtol=0.1)
