"""Baselines against dense sums in numpy, and against a leak."""

import dataclasses
import itertools
import types

import numpy as np
import polars as pl
import pytest
from random_split import NUM_ITEMS, random_split

from plum_jax.corpus.leaks import LeakError
from plum_jax.corpus.splits import Split
from plum_jax.systems.item_knn import ItemKnn
from plum_jax.systems.popularity import Popularity
from plum_jax.systems.transition_graph import TransitionGraph


@pytest.fixture(scope="module")
def split():
    return random_split()


def training_matrix(split):
    taken = np.zeros((split.corpus.num_users, NUM_ITEMS))
    counts = np.zeros(NUM_ITEMS)
    for user, item in split.training_events().select("user", "item").iter_rows():
        taken[user, item] = 1
        counts[item] += 1
    return taken, counts


def by_score(scores, popularity, seen, k):
    order = sorted(range(NUM_ITEMS), key=lambda item: (-scores[item], -popularity[item], item))
    order = [item for item in order if item not in seen][:k]
    return order + [-1] * (k - len(order))


@pytest.mark.parametrize("k", [3, NUM_ITEMS + 2])
def test_popularity_counts_training_events(split, k):
    _, popularity = training_matrix(split)
    evaluation = split.evaluation("test")
    lists = Popularity().recommend(split, evaluation, k)
    for row in range(len(evaluation)):
        assert lists.items[row].tolist() == by_score(popularity, popularity, set(), k)
        assert lists.unseen[row].tolist() == by_score(popularity, popularity, set(evaluation.history(row).tolist()), k)


@pytest.mark.parametrize(("neighbours", "history_length"), [(None, None), (3, None), (None, 2)])
def test_item_knn_sums_cosines_over_the_history(split, neighbours, history_length):
    taken, popularity = training_matrix(split)
    users_of = taken.sum(axis=0)
    similarity = (taken.T @ taken) / (np.sqrt(np.outer(users_of, users_of)) + 2.0)
    np.fill_diagonal(similarity, 0)
    if neighbours is not None:
        for row in similarity:
            row[sorted(range(NUM_ITEMS), key=lambda item: (-np.float32(row[item]), item))[neighbours:]] = 0
    evaluation = split.evaluation("test")
    knn = ItemKnn(neighbours=neighbours, shrinkage=2.0, history_length=history_length)
    np.testing.assert_allclose(knn.similarity(split).toarray(), similarity, rtol=1e-5)
    lists = knn.recommend(split, evaluation, 6)
    for row in range(len(evaluation)):
        history = evaluation.history(row)
        scores = similarity[history if history_length is None else history[-history_length:]].sum(axis=0)
        # float32 sums may part or join scores that are equal on paper: compare scores, then the items of clear ones.
        for found, seen in ((lists.items[row], set()), (lists.unseen[row], set(history.tolist()))):
            expected = by_score(scores, popularity, seen, 6)
            np.testing.assert_allclose(scores[found], scores[expected], rtol=1e-4, atol=1e-6)
            assert len(set(found.tolist())) == 6 and not seen & set(found.tolist())


def test_item_knn_without_a_neighbour_falls_back_to_popularity(split):
    _, popularity = training_matrix(split)
    evaluation = split.evaluation("test")
    lonely = dataclasses.replace(evaluation, history_items=np.full_like(evaluation.history_items, NUM_ITEMS - 1))
    lists = ItemKnn().recommend(split, lonely, 4)
    assert lists.items[0].tolist() == by_score(popularity, popularity, set(), 4)


@pytest.mark.parametrize("baseline", [Popularity(), ItemKnn()])
def test_a_planted_leak_is_caught(split, baseline, monkeypatch):
    everything = split.corpus.events.with_row_index("event").with_columns(pl.col("event").cast(pl.Int64))
    monkeypatch.setattr(Split, "training_events", lambda self: everything)
    fresh = dataclasses.replace(split)  # the split of other tests has counted its popularity already
    with pytest.raises(LeakError, match="popularity"):
        baseline.recommend(fresh, fresh.evaluation("test"), 5)


def test_twice_is_the_same(split):
    evaluation = split.evaluation("validation")
    first, second = (ItemKnn(neighbours=5).recommend(split, evaluation, 5) for _ in range(2))
    np.testing.assert_array_equal(first.items, second.items)
    np.testing.assert_array_equal(first.unseen, second.unseen)


def stages_of(split, features):
    blocks = [types.SimpleNamespace(values=features)]
    builders = () if features is None else ("one",)
    data = types.SimpleNamespace(feature_builders=builders)
    return types.SimpleNamespace(split=split, data=data, features=types.SimpleNamespace(blocks=blocks))


@pytest.mark.parametrize("with_features", [True, False])
def test_the_transition_graph_is_a_walk_from_each_last_item(split, with_features):
    features = np.random.default_rng(1).normal(size=(NUM_ITEMS, 4)) if with_features else None
    config = TransitionGraph(sources=2, hops=2)
    fitted = config.fit(stages_of(split, features), "graph")
    _, popularity = training_matrix(split)
    follows = np.zeros((NUM_ITEMS, NUM_ITEMS))
    events = list(split.training_events().select("user", "item").iter_rows())
    for (user, item), (next_user, next_item) in itertools.pairwise(events):
        if user == next_user and item != next_item:
            follows[item, next_item] += 1
    unit = None if features is None else features / np.linalg.norm(features, axis=1, keepdims=True)
    evaluation = split.evaluation("test")
    lists = fitted.rank(evaluation, 6).lists
    for row in range(len(evaluation)):
        scores = np.full(NUM_ITEMS, -np.inf)
        for number, source in enumerate(evaluation.history(row)[::-1][:2]):
            near = set(np.flatnonzero(follows[source]))
            far = {item for other in near for item in np.flatnonzero(follows[other])} - near
            for hop, ring in enumerate((near, far)):
                for item in ring:
                    worth = config.edge_weight * np.log1p(follows[source, item]) / np.log1p(follows[source].max())
                    worth += 0 if unit is None else unit[source] @ unit[item]
                    worth -= config.hop_cost * hop + config.source_cost * number
                    scores[item] = max(scores[item], worth)
        assert lists.items[row].tolist() == by_score(np.round(scores, 5), popularity, set(), 6)
        seen = set(evaluation.history(row).tolist())
        assert lists.unseen[row].tolist() == by_score(np.round(scores, 5), popularity, seen, 6)
