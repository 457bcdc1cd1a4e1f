"""Corpus: what it refuses, and that save, load and fingerprint agree."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from plum_jax import artifact
from plum_jax.corpus import schema


def small_corpus(**changes) -> schema.Corpus:
    fields = {
        "name": "small",
        "items": pl.DataFrame(
            {
                "item_id": ["a", "b", "c"],
                "title": ["Ä", None, "z"],
                "genres": [["x", "y"], [], None],
                "year": [1, None, 3],
            }
        ),
        "users": pl.DataFrame({"user_id": ["u", "v", "w"], "gender": ["F", None, "M"]}),
        "events": pl.DataFrame(
            {"user": [0, 0, 2], "item": [0, 2, 1], "time": [5, 5, 1], "rating": [1.0, None, 3.0]},
            schema={"user": pl.Int32, "item": pl.Int32, "time": pl.Int64, "rating": pl.Float32},
        ),
        "text_fields": ("title",),
        "item_features": ("genres",),
        "user_features": ("gender",),
    }
    return schema.Corpus(**(fields | changes))


def test_counts_and_offsets():
    corpus = small_corpus()
    assert (corpus.num_items, corpus.num_users, corpus.num_events) == (3, 3, 3)
    np.testing.assert_array_equal(corpus.history_offsets, [0, 2, 2, 3])


def test_saved_and_loaded_is_the_same(tmp_path):
    corpus = small_corpus(problems={"unknown item": 2})
    manifest = corpus.save(tmp_path / "corpus", {"seed": 1}, {})
    again = schema.Corpus.load(tmp_path / "corpus")
    assert again.fingerprint == corpus.fingerprint == manifest.fingerprint
    assert again.items.equals(corpus.items) and again.users.equals(corpus.users) and again.events.equals(corpus.events)
    assert again.problems == {"unknown item": 2} and again.text_fields == ("title",) and again.clock == "absolute"
    assert artifact.is_current(tmp_path / "corpus", kind="corpus", config={"seed": 1}, inputs={})


def test_changed_file_is_noticed(tmp_path):
    small_corpus().save(tmp_path / "corpus", {}, {})
    small_corpus().items.with_columns(title=pl.lit("other")).write_parquet(tmp_path / "corpus" / "items.parquet")
    with pytest.raises(artifact.ArtifactError, match="its files were changed"):
        schema.Corpus.load(tmp_path / "corpus")


@pytest.mark.parametrize(
    "column, values",
    [
        ("title", ["Ä", "", "z"]),  # null and empty differ
        ("title", ["Äz", None, ""]),  # the same letters, cut elsewhere
        ("genres", [["x"], ["y"], None]),
        ("genres", [["x", "y"], None, []]),
        ("year", [1, 0, 3]),
    ],
)
def test_fingerprint_sees_every_cell(column, values):
    corpus = small_corpus()
    changed = corpus.items.with_columns(pl.Series(column, values, dtype=corpus.items.schema[column]))
    assert dataclasses.replace(corpus, items=changed).fingerprint != corpus.fingerprint


def test_fingerprint_ignores_chunks_and_name():
    corpus = small_corpus()
    chunked = pl.concat([corpus.items[:1], corpus.items[1:]], rechunk=False)
    assert dataclasses.replace(corpus, items=chunked, name="other").fingerprint == corpus.fingerprint


def events(**columns) -> pl.DataFrame:
    return pl.DataFrame(
        {"user": [0, 0], "item": [0, 1], "time": [1, 2]} | columns,
        schema={"user": pl.Int32, "item": pl.Int32, "time": pl.Int64},
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"events": events(item=[0, 3])}, "event has item 3, expected 0..2"),
        ({"events": events(user=[0, -1])}, "event has user -1, expected 0..2"),
        ({"events": events(user=[1, 0])}, "sorted by user"),
        ({"events": events(time=[2, 1])}, "sorted by time"),
        ({"events": events(time=[2, None])}, "clock is 'absolute'"),
        ({"events": events(), "clock": "order"}, "clock is 'order'"),
        ({"events": events().cast({"item": pl.Int64})}, "events need 'item' as Int32"),
        ({"items": pl.DataFrame({"item_id": ["a", "a", "b"]})}, "item_id of items must be unique"),
        ({"users": pl.DataFrame({"user": ["a"]})}, "users need a String column 'user_id'"),
        ({"text_fields": ("titel",)}, "items have no column 'titel'; they have"),
    ],
)
def test_wrong_corpus_is_refused(changes, message):
    with pytest.raises(schema.CorpusError, match=message):
        small_corpus(**changes)


def test_error_names_file_row_and_field():
    error = schema.CorpusError("bad; mend it", file="a.csv", row=3, field="time")
    assert str(error) == "a.csv, row 3, field 'time': bad; mend it"
    assert (error.file, error.row, error.field) == ("a.csv", 3, "time")
