"""The store: exact search is brute force, a killed push goes on, and versions are not mixed up."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from plum_jax import artifact
from plum_jax.retrieval import vector_store
from plum_jax.retrieval.vector_store import StoreError, VectorStore, vectors_table

WIDTH, ITEMS = 8, 700
VECTORS = np.random.default_rng(0).normal(size=(ITEMS, WIDTH)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(5, WIDTH)).astype(np.float32)


def written(directory, trunk="t1", vectors=VECTORS, **inputs):
    """An artefact of items, as the trunk writes it."""

    def write(aside):
        table = vectors_table("items", [f"i{n}" for n in range(len(vectors))], vectors)
        pq.write_table(table, str(aside / "trunk_items.parquet"))

    inputs = {"trunk": trunk, "corpus": "c", **inputs}
    fingerprint = artifact.fingerprint(vectors)
    artifact.write_artifact(
        directory, kind="trunk_items", fingerprint=fingerprint, config={}, inputs=inputs, write=write
    )
    return directory


@pytest.fixture
def store(tmp_path):
    pytest.importorskip("lancedb", reason="LanceDB is not installed: pip install -e '.[store]'")
    return VectorStore(str(tmp_path / "store"))


def first(queries, k, vectors=VECTORS):
    order = np.argsort(-queries @ vectors.T, axis=1)[:, :k]
    return [[f"i{n}" for n in row] for row in order]


def test_exact_search_is_brute_force_and_the_index_finds_nearly_that(store, tmp_path):
    name = store.push("items", written(tmp_path / "items"))
    assert name == "items_t1" and store.push("items", tmp_path / "items") == name
    ids, scores = store.search("items", "t1", QUERIES, 10, exact=True)
    assert ids.tolist() == first(QUERIES, 10)
    np.testing.assert_allclose(scores, -np.sort(-QUERIES @ VECTORS.T, axis=1)[:, :10], rtol=1e-5)
    near, _ = store.search("items", "t1", QUERIES, 10)
    assert np.mean([np.isin(a, b).mean() for a, b in zip(ids, near, strict=True)]) > 0.9


def test_fewer_rows_than_asked_for_are_filled_up(store, tmp_path):
    store.push("items", written(tmp_path / "items", vectors=VECTORS[:3]))
    ids, scores = store.search("items", "t1", QUERIES, 5)
    assert (ids[:, 3:] == "").all() and np.isneginf(scores[:, 3:]).all() and np.isfinite(scores[:, :3]).all()


def test_a_killed_push_goes_on_and_is_not_served_before(store, tmp_path, monkeypatch):
    monkeypatch.setattr(vector_store, "_BATCH", 100)
    directory = written(tmp_path / "items")
    added = []

    def broken(*arguments, **settings):
        bar = list(arguments[0])
        added.append(bar)
        return iter(bar[:3]) if len(added) == 1 else iter(bar)

    monkeypatch.setattr(vector_store, "tqdm", broken)
    monkeypatch.setattr(VectorStore, "_register", stop_at_the_second(VectorStore._register))
    with pytest.raises(KeyboardInterrupt):
        store.push("items", directory)
    with pytest.raises(StoreError, match="has items in the space of the trunks"):
        store.search("items", "t1", QUERIES, 10)
    store.push("items", directory)
    assert [len(bar) for bar in added] == [7, 4]  # what was there was not pushed again
    assert store.search("items", "t1", QUERIES, 10, exact=True)[0].tolist() == first(QUERIES, 10)


def stop_at_the_second(register):
    calls = []

    def stopping(self, name, entry):
        calls.append(entry)
        if len(calls) == 2:
            raise KeyboardInterrupt
        register(self, name, entry)

    return stopping


def test_a_store_of_another_trunk_is_one_clear_error_and_an_aligned_one_serves(store, tmp_path):
    store.push("items", written(tmp_path / "new", trunk="t2"))
    with pytest.raises(StoreError, match=r"in the space of the trunks \['t2'\], and these queries are of trunk 't1'"):
        store.search("items", "t1", QUERIES, 10)
    with pytest.raises(StoreError, match=r"has vectors of 8 numbers, got \(5, 7\)"):
        store.search("items", "t2", QUERIES[:, 1:], 10)
    turned = VECTORS[::-1].copy()
    store.push("items", written(tmp_path / "aligned", trunk="t2", vectors=turned, aligned_to="t1"))
    assert store.search("items", "t1", QUERIES, 3, exact=True)[0].tolist() == first(QUERIES, 3, turned)
    assert store.search("items", "t2", QUERIES, 3, exact=True)[0].tolist() == first(QUERIES, 3)
    other = written(tmp_path / "new", trunk="t2", vectors=turned)  # the same trunk, from other events
    store.push("items", other)
    assert store.search("items", "t2", QUERIES, 3, exact=True)[0].tolist() == first(QUERIES, 3, turned)
    assert dataclasses.asdict(store.tables()["items_t2"])["rows"] == ITEMS


def test_what_is_not_there_or_not_complete_is_refused_without_lancedb_too(tmp_path):
    store = VectorStore(str(tmp_path / "store"))
    for name, complete in (("items_t2", True), ("items_t1", False), ("users_t1", True)):
        store._register(name, vector_store.Entry(name[-2:], "", "f", 3, WIDTH, complete))
    with pytest.raises(StoreError, match=r"has items in the space of the trunks \['t2'\], .* of trunk 't1': push that"):
        store.search("items", "t1", QUERIES, 10)
    with pytest.raises(StoreError, match=r"has vectors of 8 numbers, got \(5, 7\)"):
        store.search("items", "t2", QUERIES[:, 1:], 10)
    assert list(store.tables()) == ["items_t2", "items_t1", "users_t1"]


def test_where_lancedb_is_not_installed_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lancedb", None)
    with pytest.raises(StoreError, match=r"LanceDB is not installed.*\.\[store\]"):
        VectorStore(str(tmp_path / "store")).push("items", written(tmp_path / "items"))
