"""Towers of text learn from judged pairs which words of queries mean which of items, and are judged on others."""

import dataclasses

import jax
import numpy as np
import pytest
import small_bert
import small_shop

from plum_jax.corpus.sources.judgements import JudgedQueries
from plum_jax.corpus.splits import FOLDS, TRAIN
from plum_jax.encoders.language_model import LanguageModel
from plum_jax.encoders.network import trunk_of
from plum_jax.encoders.text_vectors import TextVectors
from plum_jax.systems import judge_search
from plum_jax.systems.product_search.feed import LowerGrades
from plum_jax.systems.product_search.judged_search import JudgedTextSearch
from plum_jax.systems.product_search.network import SearchConfig
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupLinear

KINDS, EACH = small_shop.KINDS, 3
SEARCH = JudgedTextSearch(
    relevant=2.0,
    language_model=small_shop.search().language_model,
    network=SearchConfig(parts=("terms",), width=16, hidden=16, dropout=0.0),
    training=dataclasses.replace(small_shop.TRAINING, steps=80),
    batch_size=16,
)


def judged() -> JudgedQueries:
    """Queries say a kind by another word, twice: one query trains, the other, with a word before it, is for test."""
    queries = [f"word{place}" for place in range(10)] + [f"nice word{place}" for place in range(10)]
    pairs = [
        (query, item, 3.0 if item // EACH == query % 10 else 1.0)
        for query in range(20)
        for item in sorted({*range(query % 10 * EACH, query % 10 * EACH + EACH), (query * 7 + 5) % 30})
    ]
    query, item, grade = (np.array(column) for column in zip(*pairs, strict=True))
    return JudgedQueries(
        item_ids=tuple(str(item) for item in range(30)),
        texts=tuple(f"nice {kind} no {number}" for kind in KINDS for number in range(EACH)),
        queries=tuple(queries),
        fold=np.array([TRAIN] * 10 + [FOLDS["test"]] * 10, np.int8),
        query=query.astype(np.int32),
        item=item.astype(np.int32),
        grade=grade.astype(np.float32),
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return SEARCH.fit(judged(), tmp_path_factory.mktemp("judged"), "towers")


def test_other_words_for_a_kind_are_learnt_from_relevant_pairs(fitted, tmp_path):
    towers, cosine, _ = judge_search.judged_search(tmp_path, "towers", fitted, relevant=2.0, k=EACH)
    assert towers["recall@3"] > 0.9 and towers["recall@3"] > cosine["recall@3"] + 0.3
    assert towers["ndcg@3"] > 0.95 and towers["base"] == "text_cosine"


def test_scores_and_lists_are_those_of_the_vectors(fitted):
    cosines = fitted.query_vectors @ fitted.item_vectors.T
    pairs = np.arange(len(fitted.judged.query))
    expected = cosines[fitted.judged.query, fitted.judged.item]
    np.testing.assert_allclose(fitted.pair_scores(pairs), expected, atol=1e-5)
    first = fitted.best(np.array([3, 12]), 5)
    np.testing.assert_array_equal(first, np.argsort(-cosines[[3, 12]], axis=1, kind="stable")[:, :5])


def test_what_judged_queries_have_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match="judged queries have no users or events: expected 'text', 'terms'"):
        JudgedTextSearch(2.0, network=SearchConfig())
    with pytest.raises(
        ValueError, match="no judged pair of a training query has a grade of 4.0 or more: lower RELEVANT"
    ):
        dataclasses.replace(SEARCH, relevant=4.0).fit(judged(), tmp_path, "towers")


def test_a_judged_item_of_a_lower_grade_takes_the_place_of_a_draw():
    query, item = np.array([0, 0, 0, 0, 2, 2]), np.array([5, 6, 7, 8, 3, 4], np.int32)
    rows = np.array([0, 2, 3, 5])  # of grades 3, 2.5, 1 and 1
    lower = LowerGrades.of(query, item, np.array([3.0, 1.0, 2.5, 1.0, 1.0, 1.0], np.float32), rows)
    drawn, random = np.full((4, 2), 9, np.int32), np.random.default_rng(0)
    found = np.stack([lower.in_place_of(drawn, np.arange(4), random) for _ in range(50)])
    assert [{*found[:, row, 0].tolist()} for row in range(4)] == [{6, 7, 8}, {6, 8}, {9}, {9}]
    assert (found[:, :, 1] == 9).all()


def of_bert(directory, **changed) -> JudgedTextSearch:
    """Towers as wide as a small BERT, which begin as its vectors; `changed` is of the training."""
    bert = small_bert.write(directory, (*(f"word{place}" for place in range(10)), "nice"))
    return dataclasses.replace(
        SEARCH,
        language_model=LanguageModel(pretrained=str(bert), dropout_rate=0.0),
        network=SearchConfig(parts=("text", "terms"), width=12, hidden=16, dropout=0.0, begins_as_text=True),
        training=dataclasses.replace(small_shop.TRAINING, **changed),
    )


def test_towers_that_begin_as_text_have_the_cosine_of_the_language_model(tmp_path):
    search = of_bert(tmp_path / "bert", steps=1, optimizer=AdamW(schedule=WarmupLinear(peak=0.0)))
    fitted = search.fit(judged(), tmp_path / "run", "towers")
    reader = TextVectors(search.language_model.start((), tmp_path))
    vectors = reader.of(judged().queries), reader.of(judged().texts)
    np.testing.assert_allclose(fitted.query_vectors, vectors[0], atol=1e-5)
    np.testing.assert_allclose(fitted.item_vectors, vectors[1], atol=1e-5)
    rows = judge_search.judged_search(
        tmp_path, "towers", fitted, relevant=2.0, k=EACH, cosines={"bert": vectors}, base="bert"
    )
    assert [row["name"] for row in rows] == ["towers", "text_cosine", "bert", "no_order"]
    for row, base in ((rows[0], rows[2]), (rows[2], rows[1])):
        assert row["base"] == base["name"]
        for metric in ("ndcg@3", "recall@3"):
            assert row[f"{metric}_difference"] == pytest.approx(row[metric] - base[metric])


def test_all_parts_of_towers_that_begin_as_text_are_learnt(tmp_path):
    search = of_bert(tmp_path / "bert", steps=3)
    began = of_bert(tmp_path / "bert", steps=1, optimizer=AdamW(schedule=WarmupLinear(peak=0.0)))
    first = began.fit(judged(), tmp_path / "began", "towers").params
    last = search.fit(judged(), tmp_path / "run", "towers").params
    for name in ("text", "text_width", "word_embedding", "query_tower", "item_tower"):
        pairs = zip(jax.tree.leaves(first[name]), jax.tree.leaves(last[name]), strict=True)
        assert any(np.abs(before - after).max() > 1e-4 for before, after in pairs), name


def test_towers_that_cannot_begin_as_text_are_refused(fitted, tmp_path):
    with pytest.raises(ValueError, match="expected 'text' among the parts"):
        SearchConfig(parts=("terms",), begins_as_text=True)
    search = of_bert(tmp_path / "bert")
    wide = dataclasses.replace(search, network=dataclasses.replace(search.network, width=16))
    with pytest.raises(ValueError, match="expected a width of 12, got 16: set SEARCH_WIDTH"):
        wide.fit(judged(), tmp_path / "run", "towers")
    with pytest.raises(ValueError, match="expected a base among text_cosine, got 'bert'"):
        judge_search.judged_search(tmp_path, "towers", fitted, relevant=2.0, base="bert")


def test_towers_begin_with_a_bert_and_read_texts_between_its_marks(tmp_path):
    words = [f"word{place}" for place in range(10)]
    directory = small_bert.write(tmp_path / "bert", (*words, "nice"))
    language_model = LanguageModel(pretrained=str(directory), dropout_rate=0.0)
    said = dataclasses.replace(
        SEARCH,
        language_model=language_model,
        network=SearchConfig(parts=("text",), width=16, hidden=16, dropout=0.0),
        training=dataclasses.replace(small_shop.TRAINING, steps=2),
    )
    found = said.fit(judged(), tmp_path / "run", "towers")
    assert found.queries.tokens.tokens[0, :4].tolist() == [2, 5, 3, 0]
    began = language_model.start([], tmp_path).params["transformer"]["layer_0"]["mlp"]["up"]
    assert 0 < np.abs(trunk_of(found.params["text"])["transformer"]["layer_0"]["mlp"]["up"] - began).max() < 0.1
    assert np.isfinite(found.query_vectors).all()
