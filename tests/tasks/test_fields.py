"""Derived fields by hand; tokens chosen from training data only."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from plum_jax.corpus.splits import LeaveOneOut
from plum_jax.semantic_ids.field_tokens import Buckets, Categories
from tasks.fields import SINCE_FINAL, SINCE_PREVIOUS, EventColumns, FieldTokenizer, TemplateRows


def test_hours_since_previous_and_final_watch(world):
    time = world.corpus.events["time"].to_numpy()
    columns = EventColumns(world.corpus)
    events = np.array([0, 2, 6, 7])  # 6 is the second user's first
    gaps = columns.column(SINCE_PREVIOUS, events).to_list()
    assert np.isnan(gaps[0]) and np.isnan(gaps[2])
    assert gaps[1] == (time[2] - time[1]) / 3600 and gaps[3] == (time[7] - time[6]) / 3600
    final = columns.column(SINCE_FINAL, np.array([0, 1]), np.array([time[1], time[1]])).to_list()
    assert final == [(time[1] - time[0]) / 3600, 0.0]


def test_no_times_no_time_fields(world):
    corpus = dataclasses.replace(
        world.corpus, clock="order", events=world.corpus.events.with_columns(time=pl.lit(None, pl.Int64))
    )
    assert SINCE_FINAL not in EventColumns(corpus).names
    assert SINCE_FINAL in EventColumns(world.corpus).names


def test_target_cannot_name_what_only_a_history_has(world):
    rows = TemplateRows(world.corpus, world.table, world.vocabulary)
    assert SINCE_FINAL in rows.event_fields and SINCE_FINAL not in rows.target_fields
    assert "rating" not in rows.context_fields, "engagement with the target is not known before it"
    assert "device" in rows.context_fields


def test_tokens_are_quantiles_and_frequent_values(world):
    age, gender, topics, rating = FieldTokenizer(
        ("age", "gender", "topics", "rating"), num_buckets=3, max_categories=2
    ).tokens(world.split)
    assert age == Buckets("age", tuple(np.quantile([20, 27, 34], [1 / 3, 2 / 3]).tolist()))
    assert gender == Categories("gender", ("female", "male"))
    assert topics == Categories("topics", ("music", "chill")), "frequency first, then the alphabet"
    training = world.split.training_events()["rating"].to_numpy()
    assert rating.name == "rating" and all(training.min() < edge <= training.max() for edge in rating.edges)


def test_tokens_do_not_see_held_out_events(world):
    corpus = world.corpus
    held_out = pl.Series(world.split.fold != 0)
    planted = corpus.events.with_columns(
        rating=pl.when(held_out).then(pl.lit(1e6, pl.Float32)).otherwise(pl.col("rating")),
        time=pl.when(held_out).then(pl.col("time") + 10**8).otherwise(pl.col("time")),
    )
    other = LeaveOneOut().split(dataclasses.replace(corpus, events=planted))
    chooser = FieldTokenizer(("rating", SINCE_FINAL))
    assert chooser.tokens(other) == chooser.tokens(world.split)


def test_errors(world):
    with pytest.raises(ValueError, match="has no field 'ratng'; valid are .*rating"):
        FieldTokenizer(("ratng",)).tokens(world.split)
    empty = dataclasses.replace(world.corpus, events=world.corpus.events.with_columns(rating=pl.lit(None, pl.Float32)))
    with pytest.raises(ValueError, match="'rating' has no value in any row"):
        FieldTokenizer(("rating",)).tokens(LeaveOneOut().split(empty))
