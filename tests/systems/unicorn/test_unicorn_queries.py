"""Queries from category paths: words, folds that are held out, words that are known."""

import numpy as np
import planted_shop
import pytest

from plum_jax.corpus.splits import FOLDS, TRAIN
from plum_jax.queries.category_paths import CategoryQueries
from plum_jax.queries.words import KnownWords, inverse_frequency, words_of
from plum_jax.systems.unicorn.examples import (
    HOMEPAGE,
    KNOWN_SEARCH,
    NO_QUERY,
    NO_SOURCE,
    SEARCH,
    SIMILAR,
    TASKS,
    check_tasks,
    evaluation_examples,
    queries_of_rows,
    training_examples,
)


@pytest.fixture(scope="module")
def split():
    return planted_shop.split()


@pytest.fixture(scope="module")
def queries(split):
    return CategoryQueries("path").of(split.corpus)


def test_words_stand_once_and_stop_words_not_at_all():
    assert words_of("Beauty > Hair Care > Hair & Scalp > for the Hair") == ["beauty", "hair", "care", "scalp"]
    assert words_of(" & > the ") == []


def test_a_query_is_the_words_of_the_path_and_a_share_is_held_out(split, queries):
    kinds = planted_shop.KINDS
    assert queries.texts == tuple(sorted(f"shop {kind}" for kind in kinds))
    for item, path in enumerate(split.corpus.items["path"]):
        assert queries.texts[queries.of_item[item]] == " ".join(words_of(path))
    counts = [int((queries.fold == fold).sum()) for fold in (TRAIN, FOLDS["validation"], FOLDS["test"])]
    assert counts == [6, 1, 3]
    again = CategoryQueries("path").of(split.corpus)
    assert (again.fold == queries.fold).all()
    with pytest.raises(ValueError, match="field 'path' of corpus 'planted shop' gives 10 queries, of which 0.95"):
        CategoryQueries("path", held_out=0.95).of(split.corpus)


def test_held_out_queries_are_in_no_training_example_and_in_all_of_test(split, queries):
    train = training_examples(split, queries, SEARCH)
    assert {queries.fold[number - 1] for number in train.query} == {TRAIN}
    held_out = queries.fold[queries.of_item] == FOLDS["test"]
    assert not held_out[train.target].any() and held_out[training_examples(split, queries, HOMEPAGE).target].any()
    for fold in ("validation", "test"):
        users, found = evaluation_examples(split, queries, SEARCH, fold, None)
        everybody = split.evaluation(fold)
        wanted = [
            u
            for u, t in zip(everybody.user, everybody.target_item, strict=True)
            if queries.fold[queries.of_item[t]] == FOLDS[fold]
        ]
        assert users.user.tolist() == wanted and (found.source == NO_SOURCE).all()
        assert (found.query == 1 + queries.of_item[users.target_item]).all()
        others, known = evaluation_examples(split, queries, KNOWN_SEARCH, fold, None)
        assert {queries.fold[number - 1] for number in known.query} == {TRAIN}
        assert not set(others.user) & set(users.user) and (known.task == found.task[0]).all()


def test_examples_of_each_task_are_those_of_a_plain_loop(split, queries):
    item, user = (split.corpus.events[name].to_numpy() for name in ("item", "user"))
    texts = [f"text {n}" for n in range(planted_shop.ITEMS)]
    table = queries_of_rows(queries, texts)
    pairs = [(row - 1, row) for row in range(1, len(item)) if user[row] == user[row - 1] and split.fold[row] == TRAIN]
    similar, homepage = (training_examples(split, queries, task) for task in (SIMILAR, HOMEPAGE))
    for found in (similar, homepage):
        assert [(t, e) for t, e in zip(found.target, found.event, strict=True)] == [(item[b], b) for _, b in pairs]
    assert similar.source.tolist() == [item[a] for a, _ in pairs]
    assert [table[row] for row in similar.query] == [texts[item[a]] for a, _ in pairs]
    assert (homepage.source == NO_SOURCE).all() and (homepage.query == NO_QUERY).all() and table[NO_QUERY] == ""
    users, found = evaluation_examples(split, queries, SIMILAR, "test", 7)
    assert len(users) == 7 and found.source.tolist() == [users.history(row)[-1] for row in range(7)]
    assert found.task.tolist() == [TASKS.index(SIMILAR)] * 7


def test_known_words_are_those_of_queries_and_those_that_two_texts_have():
    words = KnownWords.of(["lamp red"], ["red vase", "blue vase", "vase of glass"])
    assert words.words == ("lamp", "red", "vase") and words.size == 4
    assert words.numbers(["vase, blue lamp!", "", "red red red vase lamp"], 2).tolist() == [[3, 1], [0, 0], [2, 3]]
    numbers = words.numbers(["red vase", "vase", "vase"], 2)
    np.testing.assert_allclose(inverse_frequency(numbers, 4), [0, np.log(3), np.log(3), 0], rtol=1e-6)
    words.require("a VASE")
    with pytest.raises(ValueError, match="no word of the query 'blue glass' is known .blue, glass.: expected one of"):
        words.require("blue glass")
    for empty in ("", "of the"):
        with pytest.raises(ValueError, match="a query with at least one word that is no stop word, got"):
            words.require(empty)


def test_unknown_tasks_are_named():
    with pytest.raises(ValueError, match="unknown task 'feed': expected tasks among search, similar, homepage"):
        check_tasks(("search", "feed"))
    with pytest.raises(ValueError, match="at least one task, each once"):
        check_tasks(())
