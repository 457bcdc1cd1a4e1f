"""The index is the exact search where it looks at everything, near it elsewhere, and knows whose vectors it has."""

import numpy as np
import pytest

from plum_jax.artifact import ArtifactError
from plum_jax.retrieval.ann_index import NOTHING, AnnIndex, read_index

N, D, B = 600, 15, 40


def some(count, seed):
    """Vectors around 20 centres, of lengths that differ threefold."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(20, D))
    vectors = centres[random.integers(0, 20, count)] + 0.5 * random.normal(size=(count, D))
    vectors *= random.uniform(0.5, 1.5, (count, 1)) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    return some(N, 0)


@pytest.fixture(scope="module")
def index(vectors):
    return AnnIndex().build(vectors, [f"i{n}" for n in range(N)], "encoder a")


def exact(queries, vectors, k):
    products = queries @ vectors.astype(np.float16).astype(np.float32).T
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(products, order, axis=1), order


def test_a_shortlist_of_everything_is_the_exact_search(index, vectors):
    queries = some(B, 1)
    scores, items = index.search(queries, 10, effort=N, shortlist=N)
    expected, order = exact(queries, vectors, 10)
    reached = np.isin(order, items).mean()
    assert reached > 0.99  # a graph may leave a node out
    np.testing.assert_allclose(scores[:, 0], expected[:, 0], rtol=1e-4)
    assert (np.diff(scores, axis=1) <= 0).all() and items.dtype == np.int32


def test_codes_alone_find_most_and_a_second_ranking_nearly_all(index, vectors):
    queries = some(B, 1)
    order = exact(queries, vectors, 10)[1]
    alone, again = (
        np.mean([np.isin(a, b).mean() for a, b in zip(order, index.search(queries, 10, 64, shortlist)[1], strict=True)])
        for shortlist in (0, 60)
    )
    assert 0.4 < alone < again and again > 0.95


def test_scores_of_codes_are_near_the_products(index, vectors):
    queries = some(B, 1)
    scores, items = index.search(queries, 5)
    products = np.einsum("BD,BKD->BK", queries, vectors[items])
    assert np.abs(scores - products).mean() < 0.15 and np.corrcoef(scores.ravel(), products.ravel())[0, 1] > 0.8


def test_an_index_that_was_written_answers_as_before_and_is_refused_by_another_encoder(index, tmp_path):
    queries, directory = some(B, 2), tmp_path / "index"
    index.write(directory)
    again = read_index(directory, "encoder a")
    for a, b in zip(index.search(queries, 7, 32, 20), again.search(queries, 7, 32, 20), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (again.ids, again.config, again.size_in_bytes) == (index.ids, index.config, index.size_in_bytes)
    with pytest.raises(
        ArtifactError, match="has vectors of encoder encoder a, and the queries' are of encoder encoder b"
    ):
        read_index(directory, "encoder b")
    with pytest.raises(ArtifactError, match="expected a ann_index artefact at"):
        read_index(tmp_path / "nowhere", "encoder a")


def test_bytes_are_those_of_codes_links_and_vectors(index):
    size = index.size_in_bytes
    assert size["vectors"] == 2 * N * D and size["total"] == sum(size[name] for name in ("codes", "links", "vectors"))
    of_codes, centroids = N * (D + 1) // 2 * 4 // 8, 16 * (D + 1) * 4
    assert of_codes + centroids <= size["codes"] < of_codes + centroids + 200
    assert size["links"] > 2 * 16 * 4 * N  # 2 M links of four bytes each on the lowest level


def test_what_cannot_be_indexed_or_asked_is_one_error(vectors):
    index = AnnIndex(keep_vectors=False).build(vectors[:20], [str(n) for n in range(20)], "a")
    scores, items = index.search(vectors[:3], 30)
    assert (items[:, 20:] == NOTHING).all() and np.isneginf(scores[:, 20:]).all()
    with pytest.raises(ValueError, match="expected an index with vectors for a shortlist: make it with keep_vectors"):
        index.search(vectors[:3], 5, shortlist=10)
    with pytest.raises(ValueError, match="expected finite vectors, one an id, got 5 vectors, 4 ids and 0 numbers"):
        AnnIndex().build(vectors[:5], list("abcd"), "a")
    few = AnnIndex().build(vectors[:5], list("abcde"), "a")
    assert (few.search(vectors[:5], 1, shortlist=5)[1][:, 0] == exact(vectors[:5], vectors[:5], 1)[1][:, 0]).all()
    with pytest.raises(ValueError, match="got 20 vectors, 20 ids and 15 numbers that are not finite"):
        AnnIndex().build(np.where(np.arange(20)[:, None] == 3, np.nan, vectors[:20]), ["x"] * 20, "a")
