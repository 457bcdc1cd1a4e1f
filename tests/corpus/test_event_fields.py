"""Fields of events as buckets, against the columns that they come from."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from plum_jax.corpus.event_fields import EventFields
from plum_jax.corpus.sources.simulator import Simulator
from plum_jax.corpus.splits import LeaveOneOut
from plum_jax.stages import Data


def test_fields_of_events_are_read_where_they_are_known(tmp_path):
    """The time before an event by brute force; numbers, strings and users' columns; what training never had."""
    data = Data(Simulator(num_users=60, num_items=48, mean_history=9.0, branching=(2, 2)), LeaveOneOut())
    split = data.stages(tmp_path).split
    buckets = EventFields.of(split, ("gap",)).buckets[:, 0]
    user, time = (split.corpus.events[name].to_numpy() for name in ("user", "time"))
    for row in range(0, len(user), 7):
        first = row == 0 or user[row - 1] != user[row]
        expected = 0 if first else min(31, 1 + int(np.log2(1 + time[row] - time[row - 1])))
        assert buckets[row] == expected
    train, rng = split.fold == 0, np.random.default_rng(0)
    rating = rng.integers(1, 6, len(user)).astype(np.float32)
    device = np.where(train, np.where(rating > 3, "tv", "phone"), "watch").tolist()
    country = ["de" if number % 2 else None for number in range(split.corpus.num_users)]
    corpus = dataclasses.replace(
        split.corpus,
        events=split.corpus.events.with_columns(
            pl.Series("rating", rating, pl.Float32), pl.Series("device", device, pl.String)
        ),
        users=split.corpus.users.with_columns(pl.Series("country", country, pl.String)),
        user_features=("country",),
        context_features=("device",),
    )
    split = dataclasses.replace(split, corpus=corpus)
    fields = EventFields.of(split, ("rating", "device", "country"))
    of_rating, of_device, of_country = fields.buckets.T
    assert all(len({*of_rating[rating == star]}) == 1 for star in range(1, 6)) and len({*of_rating}) == 5
    assert fields.sizes[1:] == (3, 2) and fields.buckets.max(axis=0).tolist() < list(fields.sizes)
    assert of_device.tolist() == [{"phone": 1, "tv": 2, "watch": 0}[value] for value in device]
    assert of_country.tolist() == (user % 2).tolist()
    asked = EventFields.of(split, ("rating", "device")).asked({"device": "tv", "rating": 4})
    assert asked.tolist() == [of_rating[rating == 4][0], 2]
    with pytest.raises(ValueError, match="no field 'price' of events; it has gap, .*rating, device, country"):
        EventFields.of(split, ("price",))
    held_out = pl.when(pl.Series(train)).then(None).otherwise(pl.col("rating")).alias("rating")
    empty = dataclasses.replace(corpus, events=corpus.events.with_columns(held_out))
    with pytest.raises(ValueError, match="field 'rating' of corpus .* has no value in any training event: leave it"):
        EventFields.of(dataclasses.replace(split, corpus=empty), ("rating",))


def test_words_of_a_query_are_fields_by_their_place(tmp_path):
    """In small letters, at most six; what no training event has is unknown, and so is what is not there."""
    data = Data(Simulator(num_users=60, num_items=48, mean_history=9.0, branching=(2, 2)), LeaveOneOut())
    split = data.stages(tmp_path).split
    train = split.fold == 0
    queries = [("Red, shoes" if n % 2 else "a b c d e f g") if t else "blue shoes" for n, t in enumerate(train)]
    queries[0] = None
    query = pl.Series("query", queries, pl.String)
    corpus = dataclasses.replace(
        split.corpus, events=split.corpus.events.with_columns(query), context_features=("query",)
    )
    fields = EventFields.of(dataclasses.replace(split, corpus=corpus), ("words:query",))
    assert fields.names == tuple(f"words:query#{place}" for place in range(1, 7))
    known = fields.fields[0].known
    assert known == ("a", "b", "c", "d", "e", "f", "red", "shoes") and {*fields.sizes} == {9}
    for row, text in enumerate(queries):
        words = [] if text is None else text.lower().replace(",", "").split()[:6]
        expected = [1 + known.index(word) if word in known else 0 for word in words] + [0] * (6 - len(words))
        assert fields.buckets[row].tolist() == expected
    assert fields.asked({"words:query": "Shoes red"}).tolist() == [8, 7, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="field 'words:query#2': expected one of .*, got 'green'"):
        fields.asked({"words:query": "shoes green"})
