"""Columns of events against a loop over the corpus; batches that go on; labels and their errors."""

import dataclasses

import numpy as np
import planted_taste
import polars as pl
import pytest

from plum_jax.corpus.leaks import LeakError
from plum_jax.corpus.splits import FOLDS, UserTime
from plum_jax.ranking.event_batches import EventBatches
from plum_jax.ranking.event_columns import EventColumns, ItemCategories
from plum_jax.ranking.knowledge import KnowledgeTables
from plum_jax.ranking.labels import Label

T = 6


@pytest.fixture(scope="module")
def split():
    return UserTime().split(planted_taste.corpus(users=12))


@pytest.fixture(scope="module")
def columns(split):
    return EventColumns(split, T, ("rating",), ("age",), "genres")


def knowledge(split, width=3):
    random, corpus = np.random.default_rng(0), split.corpus
    queries = random.normal(size=(corpus.num_events, 2, width)).astype(np.float16)
    items = random.normal(size=(corpus.num_items, width)).astype(np.float32)
    return KnowledgeTables(queries, items, "k", ("low", "high"))


def test_columns_are_what_stands_before_each_event(split, columns):
    events = split.corpus.events
    user, item, time = (events[name].to_list() for name in ("user", "item", "time"))
    rows = np.random.default_rng(0).permutation(len(user))[:80]
    batch = columns.of(rows)
    assert {name: value.dtype for name, value in batch.items()} == dict.fromkeys(batch, np.int32)
    for place, row in enumerate(rows):
        before = [other for other in range(row) if user[other] == user[row]][-T:]
        n = len(before)
        assert batch["lengths"][place] == n
        assert batch["item"][place] == item[row] and batch["user"][place] == user[row]
        assert batch["behaviour_items"][place].tolist() == [item[other] for other in before] + [0] * (T - n)
        gaps = [min(31, 1 + int(np.log2(1 + time[row] - time[other]))) for other in before]
        assert batch["behaviour_fields"][place, :, 1].tolist() == gaps + [0] * (T - n)
        ratings = [events["rating"][other] for other in before]
        buckets = batch["behaviour_fields"][place, :n, 0]
        assert [bucket == 0 for bucket in buckets] == [rating is None for rating in ratings]
        assert len({(r, int(b)) for r, b in zip(ratings, buckets, strict=True)}) == len(set(ratings))
    ages = {*zip(split.corpus.users["age"].gather(batch["user"]), batch["request"][:, 0].tolist(), strict=True)}
    assert len(ages) == 5 == len({bucket for _, bucket in ages})
    assert columns.sizes.behaviour[-1] == 32 and max(bucket for _, bucket in ages) < columns.sizes.request[0]


def test_categories_are_an_item_s_lists(split, columns):
    found = ItemCategories.of(split.corpus, "genres")
    assert found.size == 6 and found.of_item.shape == (24, 2)
    names = ["", *sorted({name for names in split.corpus.items["genres"] for name in names})]
    assert [[names[n] for n in row if n] for row in found.of_item] == split.corpus.items["genres"].to_list()
    assert ItemCategories.of(split.corpus, None).size == 1
    with pytest.raises(ValueError, match="has no feature 'brand' of items to be their category; it has genres"):
        ItemCategories.of(split.corpus, "brand")


def test_where_only_the_order_is_known_gaps_are_not():
    split = UserTime().split(planted_taste.corpus(users=4, clock="order"))
    assert not EventColumns(split, T).of(np.arange(30))["behaviour_fields"].any()


def test_knowledge_is_looked_up_by_event_and_item(split):
    known = knowledge(split)
    batch = EventColumns(split, T, knowledge=known).of(np.array([7, 3]))
    np.testing.assert_array_equal(batch["knowledge_queries"], known.queries[[7, 3]].astype(np.float32))
    np.testing.assert_array_equal(batch["knowledge_item"], known.items[batch["item"]])
    short = dataclasses.replace(known, queries=known.queries[:-1])
    events = split.corpus.num_events
    with pytest.raises(ValueError, match=f"expected knowledge of {events} events and 24 items, got {events - 1} and"):
        EventColumns(split, T, knowledge=short)
    with pytest.raises(ValueError, match=r"expected queries \[events, 1 conditions, 3\] .* got \(\d+, 2, 3\)"):
        dataclasses.replace(known, condition_names=("one",))


def test_what_is_known_afterwards_is_no_request(split):
    with pytest.raises(ValueError, match=r"known before the event: expected names among \['age'\], got \['rating'\]"):
        EventColumns(split, T, request_fields=("age", "rating"))
    with pytest.raises(ValueError, match="history_length of at least 1, got 0"):
        EventColumns(split, 0)


@pytest.mark.parametrize("drawn", [False, True])
def test_batches_go_on_where_they_were(split, columns, drawn):
    events = Label().of(split)
    feed = EventBatches.of(columns, events, 32, seed=3, drawn=drawn)
    iterator = feed.make_iterator()
    batches = [next(iterator) for _ in range(feed.steps_per_epoch + 3)]
    for start in (0, 2, feed.steps_per_epoch):
        other = feed.make_iterator()
        other.set_state({"batch": start})
        for expected in batches[start : start + 3]:
            found = next(other)
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                np.testing.assert_array_equal(found[name], value)
    assert ("drawn_items" in batches[0]) is drawn
    chosen = feed.rows.arrays["event"]
    assert chosen.tolist() == events.rows["training"].tolist()
    np.testing.assert_array_equal(feed.rows.arrays["label"], events.label[chosen])


def test_a_held_out_event_among_the_behaviours_of_training_is_caught(split, columns):
    fold = split.fold.copy()
    row = int(np.flatnonzero(fold == 0)[3])
    fold[row] = FOLDS["test"]
    leaking = dataclasses.replace(split, fold=fold)
    with pytest.raises(LeakError, match="leak: a ranker was given an interaction that is held out"):
        EventBatches.of(dataclasses.replace(columns, split=leaking), Label().of(leaking), 32, seed=0)


def test_labels_are_ratings_from_a_point_on(split):
    events = Label("rating", 4.0).of(split)
    ratings = split.corpus.events["rating"].to_list()
    assert [None if np.isnan(x) else x for x in events.label] == [
        None if rating is None else float(rating >= 4) for rating in ratings
    ]
    assert events.unlabelled == 12
    for fold, number in {"training": 0, **FOLDS}.items():
        labelled = [row for row in np.flatnonzero(split.fold == number) if ratings[row] is not None]
        assert events.rows[fold].tolist() == labelled


@pytest.mark.parametrize(
    "label, message",
    [
        (Label("stars"), "has no column 'stars' of events to make labels of; it has rating: set labels.Label.field"),
        (Label(at_least=6.0), "fold 'training' of corpus 'planted': all of its .* events are 0 by rating >= 6.0"),
        (Label(at_least=0.0), "fold 'training' .* are 1 by rating >= 0.0, but AUC and training need both labels"),
    ],
)
def test_labels_that_cannot_be_are_refused(split, label, message):
    with pytest.raises(ValueError, match=message):
        label.of(split)


def test_a_fold_of_one_label_or_none_is_named(split):
    hidden = pl.when(pl.Series(split.fold == FOLDS["test"])).then(pl.lit(value := 5.0)).otherwise(pl.col("rating"))
    changed = split.corpus.events.with_columns(hidden.cast(pl.Float32).alias("rating"))
    one = dataclasses.replace(split, corpus=dataclasses.replace(split.corpus, events=changed))
    with pytest.raises(ValueError, match="fold 'test' of corpus 'planted': all of its .* labelled events are 1 by"):
        Label(at_least=value).of(one)
    text = split.corpus.events.with_columns(pl.lit("x").alias("device"))
    words = dataclasses.replace(split, corpus=dataclasses.replace(split.corpus, events=text))
    with pytest.raises(ValueError, match="column 'device' of corpus 'planted' is String, expected numbers"):
        Label("device").of(words)
