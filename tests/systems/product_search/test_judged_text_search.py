"""Towers of text learn from judged pairs which words of queries mean which of items, and are judged on others."""

import dataclasses

import numpy as np
import pytest
import small_bert
import small_shop

from plum_jax.corpus.sources.judgements import JudgedQueries
from plum_jax.corpus.splits import FOLDS, TRAIN
from plum_jax.encoders.language_model import LanguageModel
from plum_jax.encoders.network import trunk_of
from plum_jax.systems import judge_search
from plum_jax.systems.product_search.judged_search import JudgedTextSearch
from plum_jax.systems.product_search.network import SearchConfig

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
