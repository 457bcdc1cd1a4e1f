"""Planted rules are learnt by the towers; their parts are what they say; searches are answered, or refused plainly."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
import small_shop

from plum_jax import artifact
from plum_jax.corpus.splits import TRAIN
from plum_jax.evaluation.judge import judged
from plum_jax.evaluation.metrics import Catalogue
from plum_jax.jobs import product_search
from plum_jax.objectives.pool_softmax import PoolSoftmax
from plum_jax.queries.category_paths import CategoryQueries
from plum_jax.retrieval.ann_index import AnnIndex
from plum_jax.systems.product_search.feed import Negatives
from plum_jax.systems.product_search.inputs import training_searches
from plum_jax.systems.product_search.network import PARTS, SearchConfig
from plum_jax.systems.product_search.places import Location
from plum_jax.systems.product_search.quality import Quality, QualitySearch
from plum_jax.systems.product_search.requests import Request, answer
from plum_jax.systems.product_search.training import initialiser

FULL = small_shop.search(location=Location(), network=SearchConfig(parts=PARTS, width=16, hidden=16, dropout=0.0))
WEIGHTS = QualitySearch(weights=(0.0, 0.1))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def fitted(directory):
    return FULL.fit(small_shop.stages(directory), "full")


def share_found(fitted, task, k):
    users, ranking = fitted.rank_task(task, "test", k)
    return float((ranking.lists.items == users.target_item[:, None]).any(axis=1).mean())


def test_a_query_and_a_users_past_name_one_item(fitted, tmp_path):
    assert share_found(fitted, "search_known", 1) > 0.9  # a kind leaves 4 items, a maker of the past one
    assert share_found(fitted, "search", 10) > 0.4  # no text says what a new kind is; the maker leaves 10 of 40
    parts = SearchConfig(parts=("terms",), width=16, hidden=16, dropout=0.0)
    alone = small_shop.search(network=parts).fit(small_shop.stages(tmp_path), "terms")
    assert share_found(alone, "search_known", 4) > 0.9 and share_found(alone, "search_known", 1) < 0.5
    assert alone.facts["parameters"] < fitted.facts["parameters"] and fitted.facts["parts"] == list(PARTS)


def test_the_threshold_lies_between_what_is_relevant_and_what_is_not(fitted):
    users, ranking = fitted.rank_task("search_known", "test", 10)
    target, items = (ranking.shares[name] for name in ("target_above", "items_above"))
    _, vectors = fitted.searches_of("search_known", "test")
    cosines = vectors @ fitted.item_vectors.T
    np.testing.assert_allclose(items, (cosines >= 0.5).mean(axis=1))
    assert (target == (cosines[np.arange(len(users)), users.target_item] >= 0.5)).all()
    assert target.mean() > 0.9 and items.mean() < 0.15
    metrics = judged(ranking, users.user, users.target_item, (10,), Catalogue(small_shop.ITEMS))[0]
    assert metrics["target_above"] == pytest.approx(target.mean())


def test_towers_give_vectors_of_length_one_that_know_the_parts_alone(fitted):
    data, items = fitted.data, fitted.item_vectors
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1, atol=1e-5)
    params = jax.tree.map(np.array, fitted.params)
    params["category_embedding"][:] += 1.0
    assert not np.allclose(fitted.network.apply({"params": params}, np.arange(3), method="of_items"), items[:3])
    found = {"text", "text_width", "word_embedding", "item_embedding", "category_embedding", "place_embedding"}
    assert {*params} == found | {"query_tower", "item_tower"}  # one encoder of each kind for both towers
    without = dataclasses.replace(data.items, categories=data.items.categories * 0)
    network = dataclasses.replace(data, items=without).network(fitted.config.network)
    others = network.apply({"params": fitted.params}, np.arange(3), method="of_items")
    assert not np.allclose(others, items[:3])


def test_a_pretrained_transformer_is_what_both_towers_begin_with(fitted):
    data, pretrained = fitted.data, fitted.params["text"]
    batch = {"target": np.zeros(1, np.int32), **_some_search(fitted)}
    warm = initialiser(data.network(fitted.config.network), pretrained, batch).make(jax.random.key(1))
    warm = nn.unbox(warm)
    for a, b in zip(jax.tree.leaves(warm["text"]), jax.tree.leaves(pretrained), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(warm["word_embedding"], fitted.params["word_embedding"])


def _some_search(fitted):
    data = fitted.data
    found = training_searches(data.split, data.item_queries, data.user_places, fitted.config.history)
    return found.columns(data.queries, np.zeros(1, int))


def test_the_rival_and_uniform_negatives_alone_learn_too(tmp_path):
    stages, parts = (
        small_shop.stages(tmp_path),
        SearchConfig(parts=("terms", "category", "user"), width=16, hidden=16, dropout=0.0),
    )
    for name, changed in {
        "softmax": {"objective": PoolSoftmax()},
        "uniform": {"negatives": Negatives(hard=0.0)},
    }.items():
        fitted = small_shop.search(network=parts, **changed).fit(stages, name)
        assert share_found(fitted, "search_known", 1) > 0.7
        assert bool(fitted.rank_task("search", "test", 5)[1].shares) == (name == "uniform")


@pytest.fixture(scope="module")
def index(directory, fitted):
    """Made by the job; returns what it wrote, with the model's quality."""
    arguments = str(directory), small_shop.data(), "full", FULL, WEIGHTS
    product_search.tune_quality(*arguments, ks=(5,))
    product_search.build_index(*arguments, AnnIndex(links=8), efforts=(16,), shortlists=(0, 20), k=5)
    stages, model, quality = product_search.with_quality(*arguments)
    encoder = product_search.encoder_of(model, quality)
    return product_search.read_index(stages.directory / "index", encoder), quality


def test_requests_are_answered_by_query_and_user(fitted, index):
    built, quality = index
    titles = dict(fitted.data.split.corpus.items.select("item_id", "title").iter_rows())
    known = next(text for text, fold in zip(*_queries(fitted), strict=True) if fold == TRAIN)
    kind = known.split()[1]
    found = answer(fitted, quality, built, Request(known, user="u1"), 5)
    assert kind in titles[found[0][0]] and int(found[0][0][1:]) % 4 == 1  # of the kind, by the user's maker
    assert all(np.diff([score for _, score in found]) <= 0) and len(found) == 5
    few = answer(fitted, quality, built, Request(known, user="u1", threshold=0.5), 40)
    assert 0 < len(few) < 10
    nobody = answer(fitted, quality, built, Request(known), 4)
    assert all(kind in titles[item] for item, _ in nobody)
    assert answer(fitted, quality, built, Request("zither"), 3)  # read by its pieces


def _queries(fitted):
    return fitted.data.item_queries.texts, fitted.data.item_queries.fold


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(""), "expected a query with at least one word that is no stop word, got ''"),
        (Request("the of"), "at least one word that is no stop word, got 'the of'"),
        (Request("lamp", user="x"), "user: expected the id of a user of the corpus, such as 'u0', got 'x'"),
    ],
)
def test_a_request_that_cannot_be_answered_is_one_error(fitted, index, request_, message):
    built, quality = index
    with pytest.raises(ValueError, match=message):
        answer(fitted, quality, built, request_, 3)


def test_without_pieces_a_query_of_unknown_words_is_refused(fitted, index):
    built, quality = index
    network = SearchConfig(parts=("terms",), width=16, hidden=16)
    terms = dataclasses.replace(fitted, config=small_shop.search(network=network))
    with pytest.raises(ValueError, match=r"no word of the query 'zither' is known \(zither\): expected one of the"):
        answer(terms, quality, built, Request("zither"), 3)


def test_the_index_of_other_weights_of_quality_is_refused(directory, fitted, index):
    other = Quality(index[1].statistics, index[1].weights + 0.5)
    with pytest.raises(artifact.ArtifactError, match="products of the two mean nothing; make the index again"):
        product_search.read_index(directory / "index", product_search.encoder_of(fitted, other))


def test_settings_that_contradict_each_other_are_refused(fitted, tmp_path):
    with pytest.raises(ValueError, match="a query would be known from the item it is to find; leave that field out"):
        small_shop.search(text_fields=("title", "path"))
    with pytest.raises(ValueError, match="expected a location exactly where 'place' is a part"):
        small_shop.search(location=Location())
    with pytest.raises(ValueError, match="expected parts among text, terms, graph, category, user, place, with 'text'"):
        SearchConfig(parts=("graph",))
    with pytest.raises(ValueError, match="expected parts among .* got .'text', 'colour'."):
        SearchConfig(parts=("text", "colour"))
    with pytest.raises(ValueError, match="unknown task 'homepage': expected 'search' or 'search_known'"):
        fitted.searches_of("homepage", "test")
    with pytest.raises(ValueError, match="no text field 'colour'"):
        small_shop.search(queries=CategoryQueries("colour")).data(small_shop.stages(tmp_path), tmp_path)
