"""Rows of an index say what a count by hand says: of the exact list, of the targets, of the bytes."""

import numpy as np
import pytest

from plum_jax.retrieval.ann_index import AnnIndex
from plum_jax.systems.product_search.judge import index_rows, index_table

N, B, K = 300, 25, 4


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    items, searches = (random.normal(size=(count, 8)).astype(np.float32) for count in (N, B))
    targets = random.integers(0, N, B)
    targets[:10] = np.argmax(searches[:10] @ items.T, axis=1)
    index = AnnIndex().build(items, [str(n) for n in range(N)], "encoder")
    found = index_rows("full.index", index, searches, items, targets, (8, 300), (0, 300), K, {"data": "d", "seed": 1})
    return found, index, searches, items, targets


def test_each_row_counts_what_its_search_finds(rows):
    found, index, searches, items, targets = rows
    exact = np.argsort(-(searches @ items.T), axis=1)[:, :K]
    assert [row["name"] for row in found] == [
        "full.index.exact",
        *(f"full.index.{e}.{s}" for s in (0, 300) for e in (8, 300)),
    ]
    for row in found[1:]:
        _, lists = index.search(searches, K, row["effort"], row["shortlist"])
        shares = [len({*a} & {*b}) / K for a, b in zip(exact.tolist(), lists.tolist(), strict=True)]
        assert row[f"of_exact@{K}"] == pytest.approx(np.mean(shares))
        assert row[f"recall@{K}"] == pytest.approx(np.mean([t in one for t, one in zip(targets, lists, strict=True)]))
        assert (row["data"], row["seed"]) == ("d", 1)
    assert found[0][f"of_exact@{K}"] == 1 and found[0][f"of_exact@{K}_se"] == 0
    assert found[0][f"recall@{K}"] == np.mean([t in one for t, one in zip(targets, exact, strict=True)]) >= 0.4
    assert found[-1][f"of_exact@{K}"] > 0.99


def test_a_search_without_a_shortlist_needs_no_vectors(rows):
    found, index, _, items, _ = rows
    size = index.size_in_bytes
    for row in found[1:]:
        vectors = size["vectors"] if row["shortlist"] else 0
        assert row["bytes_vectors"] == vectors and row["bytes_total"] == size["codes"] + size["links"] + vectors
    assert found[0]["bytes_total"] == items.nbytes
    assert len(index_table(found, K).splitlines()) == 1 + len(found)
