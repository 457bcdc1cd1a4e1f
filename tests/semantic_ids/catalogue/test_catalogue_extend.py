"""An extended table: old items bit for bit, new ones after them, nothing half-written or foreign let in."""

import json
import pathlib

import numpy as np
import pyarrow as pa
import pytest
from etils import epath
from shop_items import NEW, OLD, POLICIES, draw, write_items

from plum_jax import artifact
from plum_jax.jobs import catalogue
from plum_jax.semantic_ids.catalogue.assign import assign_files
from plum_jax.semantic_ids.catalogue.extend import extend_table
from plum_jax.semantic_ids.catalogue.new_items import CatalogueError
from plum_jax.semantic_ids.catalogue.shards import read_shard
from plum_jax.semantic_ids.codec import Codec
from plum_jax.semantic_ids.codec_files import load_codec
from plum_jax.semantic_ids.fit_statistics import FIT_FILE
from plum_jax.semantic_ids.table import SidTable


def assigned(table: pathlib.Path, files: list[pathlib.Path], directory: pathlib.Path) -> list[epath.Path]:
    return assign_files(table, [epath.Path(path) for path in files], directory)


@pytest.mark.parametrize("policy", POLICIES)
def test_old_items_keep_ids_and_ranks_bit_for_bit(base_tables, new_items, in_files, tmp_path, policy):
    base = SidTable.load(base_tables[policy])
    shards = assigned(base_tables[policy], in_files(3), tmp_path / "shards")
    extend_table(base_tables[policy], shards[::-1], tmp_path / "sids")
    table = SidTable.load(tmp_path / "sids")
    np.testing.assert_array_equal(table.codes[:OLD], base.codes)
    np.testing.assert_array_equal(table.item_rank[:OLD], base.item_rank)
    assert table.item_ids.tolist() == [*base.item_ids.tolist(), *new_items.ids], (
        "new ones in order of the shards' names"
    )
    assert (table.codebook_sizes, table.collision_policy) == (base.codebook_sizes, policy)
    assert table.corpus_fingerprint != base.corpus_fingerprint
    codec = load_codec(tmp_path / "sids")
    codes = codec.assign(codec.encode(new_items.features)).codes
    if policy != "reassign":
        np.testing.assert_array_equal(table.codes[OLD:, : codes.shape[1]], codes)
    report = json.loads((tmp_path / "sids" / "extension.json").read_text())
    collisions = report["collisions"]
    if policy == "keep":
        assert collisions.keys() == {"policy", "collided_items", "unshared_items"}
    else:
        shared = table.num_items - len(table.items_of_sid().sids)
        assert shared == collisions["crowded_items"] > 0, "one SID each, but for those that are counted"
    if policy == "reassign":
        np.testing.assert_array_equal(table.codes[OLD:, :-1], codes[:, :-1])
        assert (table.codes[OLD:, -1] != codes[:, -1]).sum() == collisions["moved_items"] > 0
    for row, items in enumerate(np.split(table.items_of_sid().items, table.items_of_sid().offsets[1:-1])):
        assert table.item_rank[items].tolist() == list(range(len(items))), f"ranks of SID {row} have no gap"


@pytest.mark.parametrize("policy", POLICIES)
def test_two_extensions_give_what_one_gives(base_tables, in_files, tmp_path, policy):
    first, second = in_files(2)
    at_once = extend_table(
        base_tables[policy], assigned(base_tables[policy], [first, second], tmp_path / "both"), tmp_path / "at_once"
    )
    extend_table(base_tables[policy], assigned(base_tables[policy], [first], tmp_path / "one"), tmp_path / "halfway")
    shards = assigned(tmp_path / "halfway", [second], tmp_path / "two")
    one_by_one = extend_table(tmp_path / "halfway", shards, tmp_path / "in_the_end")
    np.testing.assert_array_equal(one_by_one.codes, at_once.codes)
    np.testing.assert_array_equal(one_by_one.item_rank, at_once.item_rank)
    assert (tmp_path / "in_the_end" / FIT_FILE).read_text() == (base_tables[policy] / FIT_FILE).read_text()


@pytest.mark.parametrize("policy", POLICIES)
def test_ids_that_the_base_has_keep_theirs_and_are_counted(base_tables, new_items, tmp_path, policy):
    ids = list(new_items.ids)
    ids[::10] = [f"v{row}" for row in range(NEW // 10)]
    mixed = [write_items(tmp_path / "new" / "a.parquet", new_items, item_id=pa.array(ids))]
    table = extend_table(base_tables[policy], assigned(base_tables[policy], mixed, tmp_path / "s1"), tmp_path / "mixed")
    report = json.loads((tmp_path / "mixed" / "extension.json").read_text())
    assert (report["already_known"], report["new_items"], table.num_items) == (NEW // 10, NEW * 9 // 10, OLD + 360)
    fresh = new_items.take(np.setdiff1d(np.arange(NEW), np.arange(0, NEW, 10)))
    only = [write_items(tmp_path / "new" / "b.parquet", fresh)]
    expected = extend_table(
        base_tables[policy], assigned(base_tables[policy], only, tmp_path / "s2"), tmp_path / "only"
    )
    assert table.fingerprint == expected.fingerprint


def test_nothing_new_leaves_the_codes_and_says_nothing_of_drift(base_tables, old_items, tmp_path):
    known = [write_items(tmp_path / "new" / "a.parquet", old_items.take(np.arange(5)))]
    table = extend_table(
        base_tables["reassign"], assigned(base_tables["reassign"], known, tmp_path / "s"), tmp_path / "t"
    )
    np.testing.assert_array_equal(table.codes, SidTable.load(base_tables["reassign"]).codes)
    assert json.loads((tmp_path / "t" / "drift.json").read_text()) is None


def test_an_id_that_comes_twice_is_named_with_both_places(base_tables, new_items, in_files, tmp_path):
    files = in_files(2)
    ids = [*new_items.ids[200:399], new_items.ids[4]]
    write_items(files[1], new_items.take(np.arange(200, 400)), item_id=pa.array(ids))
    shards = assigned(base_tables["keep"], files, tmp_path / "shards")
    message = r"item 'v604' is new in .*part-00.parquet, row 5 and in .*part-01.parquet, row 200 \(2 rows"
    with pytest.raises(CatalogueError, match=message):
        extend_table(base_tables["keep"], shards, tmp_path / "sids")
    assert not (tmp_path / "sids").exists()


@pytest.mark.parametrize("where", [-20, 60, 2000])
def test_a_damaged_shard_is_named(base_tables, in_files, tmp_path, where):
    """A bit that has flipped in the footer or in a page, and a file that ends too early."""
    shards = assigned(base_tables["keep"], in_files(2), tmp_path / "shards")
    content = bytearray(shards[1].read_bytes())
    content[where] ^= 0xFF
    shards[1].write_bytes(bytes(content))
    with pytest.raises(CatalogueError, match=r"shard .*part-01.parquet cannot be read .* delete it"):
        extend_table(base_tables["keep"], shards, tmp_path / "sids")
    shards[1].write_bytes(bytes(content[:1000]))
    with pytest.raises(CatalogueError, match=r"shard .*part-01.parquet cannot be read .* delete it"):
        extend_table(base_tables["keep"], shards, tmp_path / "sids")


def test_a_flipped_bit_is_never_read_as_other_codes(base_tables, in_files, tmp_path):
    """Pages have checksums; a bit in what only describes them either does not matter or makes the file unreadable."""
    (shard,) = assigned(base_tables["keep"], in_files(1), tmp_path / "shards")
    whole, content = read_shard(shard), shard.read_bytes()
    pages = len(content) - 8 - int.from_bytes(content[-8:-4], "little")  # what comes before the footer
    refused = 0
    for position in range(4, pages, 5):
        flipped = bytearray(content)
        flipped[position] ^= 0x01
        shard.write_bytes(bytes(flipped))
        try:
            read = read_shard(shard)
        except CatalogueError:
            refused += 1
        else:
            np.testing.assert_array_equal(read.codes, whole.codes)
            np.testing.assert_array_equal(read.squared_error, whole.squared_error)
            assert read.item_ids == whole.item_ids
    assert refused > 100


def test_what_is_no_shard_or_of_another_codec_is_refused(base_tables, in_files, tmp_path):
    (path,) = in_files(1)
    with pytest.raises(CatalogueError, match=r"part-00.parquet is a Parquet file, but no shard of new items"):
        extend_table(base_tables["keep"], [epath.Path(path)], tmp_path / "sids")
    with pytest.raises(CatalogueError, match=r"expected one or more shards"):
        extend_table(base_tables["keep"], [], tmp_path / "sids")
    other = tmp_path / "other"
    SidTable.load(base_tables["keep"]).save(other)
    codec = load_codec(base_tables["keep"])
    Codec(codec.encoder, codec.codebooks[::-1]).write_files(epath.Path(other))
    shards = assigned(other, [path], tmp_path / "shards")
    with pytest.raises(CatalogueError, match=r"shard .* was made by codec \w+, the table's is \w+"):
        extend_table(base_tables["keep"], shards, tmp_path / "sids")
    (other / FIT_FILE).write_text((base_tables["keep"] / FIT_FILE).read_text())
    with pytest.raises(CatalogueError, match=r"the table has levels .* its codec \(64, 8, 12\)"):
        extend_table(other, shards, tmp_path / "sids")


def test_reassign_needs_its_sources_as_they_were(base_tables, new_items, in_files, tmp_path):
    files = in_files(2)
    shards = assigned(base_tables["reassign"], files, tmp_path / "shards")
    write_items(files[1], new_items.take(np.arange(200)))
    with pytest.raises(CatalogueError, match=r"part-01.parquet is not there as it was when shard"):
        extend_table(base_tables["reassign"], shards, tmp_path / "sids")
    files[1].unlink()
    with pytest.raises(CatalogueError, match=r"part-01.parquet is not there as it was when shard"):
        extend_table(base_tables["reassign"], shards, tmp_path / "sids")
    extend_table(base_tables["keep"], shards, tmp_path / "kept")  # the same codec, and nothing to be read again


def test_a_current_extension_is_read_and_a_stale_one_made_again(base_tables, in_files, tmp_path, monkeypatch):
    files = in_files(2)
    shards = assigned(base_tables["keep"], files, tmp_path / "shards")
    first = extend_table(base_tables["keep"], shards, tmp_path / "sids")
    monkeypatch.setattr(artifact, "write_artifact", lambda *_, **__: pytest.fail("it was there"))
    assert extend_table(base_tables["keep"], shards, tmp_path / "sids").fingerprint == first.fingerprint
    monkeypatch.undo()
    assert extend_table(base_tables["keep"], shards[:1], tmp_path / "sids").num_items == OLD + NEW // 2


def test_the_jobs_do_all_of_it_and_tell_of_a_process_that_has_not_finished(base_tables, tmp_path, capsys):
    for number in range(3):
        write_items(tmp_path / "new" / f"{number}.parquet", draw(40, seed=number, first=1000 + 40 * number))
    run, table, files = str(tmp_path / "run"), str(base_tables["extra_digit"]), str(tmp_path / "new" / "*.parquet")
    catalogue.assign_new_items(run, table, files, process_index=0, process_count=2)
    with pytest.raises(
        CatalogueError, match=r"1 of 3 files of new items have no shard .*1.parquet: run gin/run/assign"
    ):
        catalogue.extend_catalogue(run, table, files)
    catalogue.assign_new_items(run, table, files, process_index=1, process_count=2)
    catalogue.extend_catalogue(run, table, files)
    printed = capsys.readouterr().out
    assert SidTable.load(tmp_path / "run" / "sids").num_items == OLD + 120
    assert '"new_items": 120' in printed and "error / variance" in printed
