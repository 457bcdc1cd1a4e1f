"""A pipeline whose corpus has grown: what was there keeps its IDs, and a trained model its meaning."""

import json

import numpy as np
import pytest
from etils import epath
from shop_items import NEW, OLD, POLICIES, corpus_of, draw, together, write_items

from plum_jax.semantic_ids.balance import BalancedLastLevel
from plum_jax.semantic_ids.build import build_sid_table
from plum_jax.semantic_ids.catalogue.assign import assign_files
from plum_jax.semantic_ids.catalogue.extend import extend_table
from plum_jax.semantic_ids.catalogue.frozen_ids import FrozenIds
from plum_jax.semantic_ids.fit_statistics import FIT_FILE
from plum_jax.semantic_ids.inputs import QuantizerError
from plum_jax.semantic_ids.table import SidTable


@pytest.mark.parametrize("policy", POLICIES)
def test_a_grown_corpus_gets_what_an_extended_table_has(base_tables, old_items, new_items, tmp_path, policy):
    base = SidTable.load(base_tables[policy])
    items = together(old_items, new_items)
    table = build_sid_table(
        corpus_of(items), items.features, FrozenIds(str(base_tables[policy])), policy, tmp_path / "t"
    )
    np.testing.assert_array_equal(table.codes[:OLD], base.codes)
    assert (table.codebook_sizes, table.collision_policy) == (base.codebook_sizes, policy)
    files = [epath.Path(write_items(tmp_path / "new" / "a.parquet", new_items))]
    shards = assign_files(base_tables[policy], files, tmp_path / "shards")
    extended = extend_table(base_tables[policy], shards, tmp_path / "extended")
    np.testing.assert_array_equal(table.codes, extended.codes)
    report = json.loads((tmp_path / "t" / "quality.json").read_text())["quantizer"]
    assert (report["old_items"], report["new_items"], report["base_items_not_in_corpus"]) == (OLD, NEW, 0)
    assert report["drift"] == json.loads((tmp_path / "extended" / "drift.json").read_text())
    assert report["drift"]["error"]["ratio"] == pytest.approx(1, abs=0.1)
    # It can be grown again, from statistics of the items that the codebooks were fitted to.
    assert (tmp_path / "t" / FIT_FILE).read_text() == (base_tables[policy] / FIT_FILE).read_text()
    more = together(items, draw(50, seed=9, first=OLD + NEW))
    again = build_sid_table(corpus_of(more), more.features, FrozenIds(str(tmp_path / "t")), policy, tmp_path / "again")
    np.testing.assert_array_equal(again.codes[: OLD + NEW], table.codes)


def test_items_that_are_gone_are_counted_and_their_ids_stay_reserved(base_tables, old_items, new_items, tmp_path):
    rows = np.random.default_rng(0).permutation(OLD)[:500]  # in another order too
    items = together(old_items.take(rows), new_items)
    frozen = FrozenIds(str(base_tables["reassign"]))
    table = build_sid_table(corpus_of(items), items.features, frozen, "reassign", tmp_path / "t")
    base = SidTable.load(base_tables["reassign"])
    np.testing.assert_array_equal(table.codes[:500], base.codes[rows])
    report = json.loads((tmp_path / "t" / "quality.json").read_text())["quantizer"]
    assert report["base_items_not_in_corpus"] == 100
    gone = {tuple(row) for row in np.delete(base.codes, rows, axis=0).tolist()}
    found = sum(tuple(row) in gone for row in table.codes[500:].tolist())
    assert found <= report["collisions"]["crowded_items"]


@pytest.mark.parametrize("policy, balance", [("keep", None), ("extra_digit", BalancedLastLevel())])
def test_the_policy_stays_as_it_was(base_tables, old_items, tmp_path, policy, balance):
    frozen = FrozenIds(str(base_tables["extra_digit"]))
    with pytest.raises(QuantizerError, match=r"made with collision policy 'extra_digit', which they keep"):
        build_sid_table(corpus_of(old_items), old_items.features, frozen, policy, tmp_path / "t", balance=balance)


def test_another_catalogue_is_refused(base_tables, new_items, tmp_path):
    frozen = FrozenIds(str(base_tables["keep"]))
    with pytest.raises(QuantizerError, match=r"none of the 400 items of corpus 'shop' \(such as 'v600'\) is in"):
        build_sid_table(corpus_of(new_items), new_items.features, frozen, "keep", tmp_path / "t")


def test_another_base_makes_the_table_again(base_tables, old_items, tmp_path):
    split = corpus_of(old_items)
    base = tmp_path / "base"
    SidTable.load(base_tables["keep"]).save(base)
    for name in ("codec.json", "codec.npz", FIT_FILE):
        (base / name).write_bytes((base_tables["keep"] / name).read_bytes())
    first = build_sid_table(split, old_items.features, FrozenIds(str(base)), "keep", tmp_path / "t")
    written = (tmp_path / "t" / "manifest.json").stat().st_ino
    build_sid_table(split, old_items.features, FrozenIds(str(base)), "keep", tmp_path / "t")
    assert (tmp_path / "t" / "manifest.json").stat().st_ino == written
    moved = SidTable.create(first.codes[::-1], first.codebook_sizes, first.item_ids.tolist(), collision_policy="keep")
    moved.save(base)
    for name in ("codec.json", "codec.npz", FIT_FILE):
        (base / name).write_bytes((base_tables["keep"] / name).read_bytes())
    second = build_sid_table(split, old_items.features, FrozenIds(str(base)), "keep", tmp_path / "t")
    np.testing.assert_array_equal(second.codes, first.codes[::-1])
