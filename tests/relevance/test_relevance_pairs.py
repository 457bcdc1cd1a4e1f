"""Classes of grades, pairs that nobody judged, orders that nothing is trained for, and how all are judged."""

import collections
import math

import numpy as np
import polars as pl
import pytest
import small_judgements

from plum_jax.corpus.features.text import embed_texts
from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.splits import TRAIN
from plum_jax.evaluation.metrics.graded import graded_ndcg
from plum_jax.queries.words import words_of
from plum_jax.relevance import baselines
from plum_jax.relevance.classes import OrderedClasses
from plum_jax.relevance.judge import JudgedFold, cross_entropy, differences, values_of
from plum_jax.relevance.pairs import NO_LABEL, NearPairs, Pairs, RelevanceData

HOME_DEPOT = OrderedClasses((1.0, 1.5, 2.0, 2.5, 3.0))
CLASSES = OrderedClasses((1.0, 2.0, 3.0))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    judged = CLASSES.read(small_judgements.write(tmp_path_factory.mktemp("search")))
    return RelevanceData(judged, CLASSES, NearPairs(per_query=3, nearest=8, dim=64).of(judged))


def test_thirds_are_five_classes_and_quarters_go_to_the_nearest():
    grades = np.array([1, 1.25, 1.33, 1.5, 1.67, 1.75, 2, 2.25, 2.33, 2.5, 2.67, 2.75, 3], np.float32)
    assert HOME_DEPOT.of(grades).tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 4]
    logits = np.log(np.array([[0.5, 0, 0, 0, 0.5], [0, 0, 1, 0, 0]]) + 1e-30)
    np.testing.assert_allclose(HOME_DEPOT.expected(logits), [2.0, 2.0], atol=1e-5)
    with pytest.raises(ValueError, match="expected grades from 1.0 to 3.0, got 3.5"):
        HOME_DEPOT.of(np.array([1.0, 3.5]))
    with pytest.raises(ValueError, match="at least two levels, rising"):
        OrderedClasses((1.0, 1.0))


def test_a_grade_outside_of_the_scale_is_named_with_its_file_row_and_field(tmp_path):
    judgements = small_judgements.write(tmp_path)
    rows = (tmp_path / "judgements.tsv").read_text().splitlines()
    rows[4] = "\t".join([*rows[4].split("\t")[:3], "4.0", rows[4].split("\t")[4]])
    (tmp_path / "judgements.tsv").write_text("\n".join(rows) + "\n")
    with pytest.raises(CorpusError, match=r"judgements.tsv.*expected a grade from 1.0 to 3.0, got '4.0'") as error:
        CLASSES.read(judgements)
    assert (error.value.row, error.value.field) == (5, "relevance")


def test_unlabelled_pairs_are_near_items_of_training_queries_that_nobody_judged(data):
    judged, pairs = data.judged, data.unlabelled
    known = set(zip(judged.query.tolist(), judged.item.tolist(), strict=True))
    items, queries = embed_texts(judged.texts, 64, "items"), embed_texts(judged.queries, 64, "queries")
    train = [number for number, fold in enumerate(judged.fold) if fold == TRAIN]
    assert pairs.query.tolist() == [number for number in train for _ in range(3)]
    assert (pairs.label == NO_LABEL).all()
    for number in train:
        cosines = items @ queries[number]
        new = [item for item in np.argsort(-cosines) if (number, item) not in known]
        found = pairs.item[pairs.query == number]
        assert len(set(found)) == 3 and cosines[found].min() >= cosines[new[7]] - 1e-6
        assert not known & {(number, item) for item in found}
    again = NearPairs(per_query=3, nearest=8, dim=64).of(judged)
    assert again.fingerprint == pairs.fingerprint


def test_bm25_is_its_formula():
    queries, texts = ["red lamp", "drill"], ["red lamp", "lamp of steel and wood", "blue chair", "a drill drill"]
    pairs = Pairs(np.array([0, 0, 0, 1]), np.array([0, 1, 2, 3]), np.zeros(4, np.int32))
    words = [set(words_of(text)) for text in texts]
    there = collections.Counter(word for of_text in words for word in of_text)
    mean = sum(map(len, words)) / len(words)
    expected = [
        sum(
            math.log(1 + (4 - there[word] + 0.5) / (there[word] + 0.5))
            * 2.2
            / (1 + 1.2 * (1 - 0.75 + 0.75 * len(words[item]) / mean))
            for word in words_of(queries[query])
            if word in words[item]
        )
        for query, item in zip(pairs.query, pairs.item, strict=True)
    ]
    np.testing.assert_allclose(baselines.BM25().scores(queries, texts, pairs), expected, rtol=1e-9)
    assert expected[2] == 0 < expected[1] < expected[0]


def test_figures_of_queries_are_those_of_plain_loops(data):
    fold = JudgedFold.of(data, "test")
    pairs, random = fold.pairs, np.random.default_rng(0)
    scores, predicted = random.normal(size=len(pairs)), random.integers(0, 3, len(pairs))
    frame = fold.by_query(scores, predicted)
    for row in frame.iter_rows(named=True):
        mine = pairs.query == row["query"]
        gains = 2.0 ** (fold.grades[mine] - 1) - 1
        expected = graded_ndcg(scores[mine], gains, 10)
        assert row["ndcg@10"] == pytest.approx(expected, nan_ok=True)
        assert (row["pairs"], row["correct"]) == (mine.sum(), (predicted[mine] == pairs.label[mine]).sum())
    metrics = fold.metrics(frame)
    assert metrics["accuracy"] == pytest.approx((predicted == pairs.label).mean())
    assert metrics["ndcg@20"] == pytest.approx(np.nanmean(frame["ndcg@20"].to_numpy()))
    assert metrics["short_queries"] == metrics["known_words_queries"] == len(frame)
    assert metrics["new_words_queries"] == metrics["long_queries"] == 0
    assert np.isnan(values_of(fold.by_query(scores), "accuracy")).all()


def test_kinds_of_queries_are_told_by_their_words(tmp_path):
    rows = [("a", "red lamp", "train"), ("b", "red lamp of steel", "test"), ("c", "one two three four five", "test")]
    pairs = [(name, text, "1", "2", fold) for name, text, fold in rows]
    columns = ["query_id", "query", "item_id", "relevance", "fold"]
    pl.DataFrame(pairs, schema=columns, orient="row").write_csv(tmp_path / "judgements.tsv", separator="\t")
    pl.DataFrame({"item_id": ["1"], "title": ["lamp"]}).write_csv(tmp_path / "items.tsv", separator="\t")
    files = str(tmp_path / "judgements.tsv"), str(tmp_path / "items.tsv")
    judged = CLASSES.read(small_judgements.Judgements(*files))
    kinds = JudgedFold.of(RelevanceData(judged, CLASSES, NearPairs(1, 1).of(judged)), "test").kinds
    assert {name: kind.tolist() for name, kind in kinds.items()} == {
        "short": [False, False],
        "middle": [True, False],
        "long": [False, True],
        "new_words": [True, True],
        "known_words": [False, False],
    }


def test_differences_are_those_of_the_same_queries():
    first = pl.DataFrame({"pairs": [2, 4], "correct": [2, 2], "ndcg@10": [1.0, np.nan], "ndcg@20": [1.0, 0.5]})
    second = first.with_columns(pl.Series("correct", [1, 1]), pl.Series("ndcg@20", [0.5, 0.5]))
    found = differences(first, second)
    assert found["accuracy_difference"] == pytest.approx(2 / 6) and found["ndcg@10_difference"] == 0
    assert found["ndcg@20_difference"] == pytest.approx(0.25)
    without = differences(first, second.drop("correct"))
    assert {name.partition("_")[0] for name in without} == {"ndcg@10", "ndcg@20"}
    logits = np.log(np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert cross_entropy(logits, np.array([1, 0])) == pytest.approx(-(np.log(0.75) + np.log(0.5)) / 2)
