"""Judged queries are read by the names of columns; what cannot be read is one error with file, row and field."""

import dataclasses

import polars as pl
import pytest

from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources.judgements import Judgements
from plum_jax.corpus.splits import FOLDS, TRAIN

ITEMS = [("a", "red lamp"), ("b", None), ("c", "blue chair")]
PAIRS = [
    ("2", "chair", "c", "3", "train"),
    ("1", "lamp", "a", "2.5", "test"),
    ("2", "chair", "a", "1", "train"),
    ("2", "chair", "c", "2", "train"),
]


def judgements(directory, pairs=PAIRS, items=ITEMS):
    columns = ["q", "text", "product", "score", "part"]
    pl.DataFrame(pairs, schema=columns, orient="row").write_csv(directory / "pairs.tsv", separator="\t")
    pl.DataFrame(items, schema=["product", "name"], orient="row").write_csv(directory / "items.csv")
    return Judgements(
        str(directory / "pairs.tsv"),
        str(directory / "items.csv"),
        "q",
        "text",
        "product",
        "score",
        "part",
        "product",
        "name",
    )


def test_pairs_are_sorted_by_query_and_a_pair_that_is_judged_twice_has_the_mean(tmp_path):
    found = judgements(tmp_path).read()
    assert found.queries == ("chair", "lamp") and found.fold.tolist() == [TRAIN, FOLDS["test"]]
    assert found.item_ids == ("a", "b", "c") and found.texts == ("red lamp", "", "blue chair")
    pairs = list(zip(found.query.tolist(), found.item.tolist(), found.grade.tolist(), strict=True))
    assert pairs == [(0, 0, 1.0), (0, 2, 2.5), (1, 0, 2.5)]
    assert found.fingerprint == judgements(tmp_path).read().fingerprint


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("1", "lamp", "z", "1", "test"), "row 6, field 'product': expected an item of .*items.csv, got 'z'"),
        (("1", "lamp", "b", "good", "test"), "row 6, field 'score': expected a number, got 'good'"),
        (("1", "lamp", "b", "nan", "test"), "row 6, field 'score': expected a number, got 'nan'"),
        (("1", "lamp", "b", "1", "dev"), "field 'part': expected one of train, validation, test, got 'dev'"),
        (("3", "", "b", "1", "test"), "row 6, field 'text': expected the words of a query"),
        (("1", "lamp", "b", "1", "train"), "field 'part': expected one fold of a query_id, got 'train'"),
        (("1", "lamps", "b", "1", "test"), "field 'text': expected one query of a query_id, got 'lamps'"),
    ],
)
def test_a_row_that_cannot_be_read(tmp_path, pair, message):
    with pytest.raises(CorpusError, match=message):
        judgements(tmp_path, [*PAIRS, pair]).read()


def test_an_item_twice_and_a_column_that_is_not_there(tmp_path):
    with pytest.raises(CorpusError, match="row 5, field 'product': expected each item once"):
        judgements(tmp_path, items=[*ITEMS, ("a", "again")]).read()
    with pytest.raises(CorpusError, match="missing column"):
        Judgements(str(tmp_path / "pairs.tsv"), str(tmp_path / "items.csv")).read()


def test_queries_may_stand_in_a_table_of_their_own_and_grades_on_a_scale(tmp_path):
    together = judgements(tmp_path).read()
    pairs = [(query, item, grade) for query, _, item, grade, _ in PAIRS]
    pl.DataFrame(pairs, schema=["q", "product", "score"], orient="row").write_csv(tmp_path / "graded.csv")
    queries = [("1", "lamp", "test"), ("2", "chair", "train"), ("3", "sofa", "train")]
    pl.DataFrame(queries, schema=["q", "text", "part"], orient="row").write_csv(tmp_path / "queries.csv")
    apart = dataclasses.replace(
        judgements(tmp_path), judgements_path=str(tmp_path / "graded.csv"), queries_path=str(tmp_path / "queries.csv")
    )
    assert apart.read().fingerprint == together.fingerprint
    assert dataclasses.replace(apart, grades=(1.0, 3.0)).read().fingerprint == together.fingerprint
    with pytest.raises(CorpusError, match="row 2, field 'score': expected a grade from 1.0 to 2.5, got '3'"):
        dataclasses.replace(apart, grades=(1.0, 2.5)).read()
    twice = pl.DataFrame([*queries, queries[0]], schema=["q", "text", "part"], orient="row")
    twice.write_csv(tmp_path / "queries.csv")
    with pytest.raises(CorpusError, match="queries.csv, row 5, field 'q': expected each query once"):
        apart.read()
    twice[1:3].write_csv(tmp_path / "queries.csv")
    with pytest.raises(CorpusError, match="row 3, field 'q': expected a query of .*queries.csv, got '1'"):
        apart.read()
