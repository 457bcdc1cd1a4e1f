"""New items from files: the same codes however they are cut up, run or interrupted; bad files refused by name."""

import builtins
import json
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath
from shop_items import DIMS, NEW, Items, corpus_of, draw, write_items

from plum_jax import artifact
from plum_jax.corpus.features import FeatureBlock, ItemFeatures
from plum_jax.jobs import catalogue
from plum_jax.semantic_ids.build import build_sid_table
from plum_jax.semantic_ids.catalogue import new_items as new_items_module
from plum_jax.semantic_ids.catalogue.assign import assign_file, assign_files
from plum_jax.semantic_ids.catalogue.beam import assign_files_on_beam
from plum_jax.semantic_ids.catalogue.new_items import CatalogueError, NewItemFile, new_item_files
from plum_jax.semantic_ids.catalogue.shards import read_shard
from plum_jax.semantic_ids.codec import Codec
from plum_jax.semantic_ids.codec_files import load_codec
from plum_jax.semantic_ids.random_ids import RandomIds
from plum_jax.semantic_ids.table import SidTable

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]


def contents(shards: list[pathlib.Path]) -> list[tuple]:
    """Ids, codes and errors of all shards in order of their names."""
    read = [read_shard(epath.Path(path)) for path in sorted(shards)]
    ids = [item for shard in read for item in shard.item_ids.to_pylist()]
    return list(
        zip(
            ids,
            np.concatenate([shard.codes for shard in read]).tolist(),
            np.concatenate([shard.squared_error for shard in read]).tolist(),
            strict=True,
        )
    )


@pytest.fixture(scope="module")
def expected(base_tables, new_items) -> list[tuple]:
    """What the codec gives all new items at once."""
    codec = load_codec(base_tables["keep"])
    assignment = codec.assign(codec.encode(new_items.features))
    return list(zip(new_items.ids, assignment.codes.tolist(), assignment.squared_error[:, -1].tolist(), strict=True))


@pytest.mark.parametrize("rows", [1, 7, 64, 100_000])
def test_a_stream_gives_what_the_whole_gives(base_tables, in_files, expected, tmp_path, monkeypatch, rows):
    monkeypatch.setattr(new_items_module, "NUMBERS_AT_ONCE", rows * sum(DIMS.values()))
    shards = assign_files(base_tables["keep"], [epath.Path(path) for path in in_files(1)], tmp_path / "shards")
    assert contents(shards) == expected


def test_three_processes_make_what_one_makes(base_tables, in_files, expected, tmp_path):
    files = new_item_files([str(path) for path in in_files(5)])
    made = [assign_files(base_tables["keep"], files, tmp_path / "shards", index, 3) for index in range(3)]
    assert [len(shards) for shards in made] == [2, 2, 1]
    assert contents([shard for shards in made for shard in shards]) == expected


def test_apache_beam_makes_what_one_process_makes(base_tables, in_files, expected, tmp_path):
    pytest.importorskip("apache_beam")
    in_files(3)
    catalogue.assign_new_items(
        str(tmp_path / "run"),
        table=str(base_tables["keep"]),
        new_items=str(tmp_path / "new_3" / "*.parquet"),
        runner="DirectRunner",
        runner_options=["--direct_num_workers=1"],
    )
    assert contents(list((tmp_path / "run" / "new_item_shards").iterdir())) == expected


def test_a_worker_of_beam_names_the_bad_row(base_tables, tmp_path):
    pytest.importorskip("apache_beam")
    items = draw(5, seed=0, first=0)
    items.features.blocks[0].values[2, 3] = np.nan
    path = write_items(tmp_path / "bad.parquet", items)
    with pytest.raises(CatalogueError, match=r"bad.parquet, row 3, item 'v2': block 'text' has nan"):
        assign_files_on_beam(base_tables["keep"], [epath.Path(path)], tmp_path / "shards", "DirectRunner")
    assert list((tmp_path / "shards").iterdir()) == []


def test_without_beam_the_extra_is_named(base_tables, tmp_path, monkeypatch):
    real = builtins.__import__

    def without_beam(name: str, *args, **kwargs):
        if name.startswith("apache_beam"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_beam)
    with pytest.raises(CatalogueError, match=r"pip install 'plum_jax\[beam\]'"):
        assign_files_on_beam(base_tables["keep"], [], tmp_path, "DirectRunner")


@pytest.mark.parametrize("kind", [pa.list_(pa.float32(), 8), pa.large_list(pa.float64())])
def test_lists_arrays_doubles_and_numbered_items_read_alike(base_tables, new_items, expected, tmp_path, kind):
    numbers = pa.array([int(item[1:]) for item in new_items.ids], pa.int64())
    text = pa.array(new_items.features.block("text").values.astype(np.float64).tolist(), kind)
    path = write_items(tmp_path / "a.parquet", new_items, item_id=numbers, text=text)
    (shard,) = assign_files(base_tables["keep"], [epath.Path(path)], tmp_path / "shards")
    assert contents([shard]) == [(item[1:], codes, error) for item, codes, error in expected]


def test_null_in_a_column_of_arrays_has_a_message_of_its_own(base_tables, new_items, tmp_path):
    cells = [[1.0] * 8, None] * (NEW // 2)
    path = write_items(tmp_path / "a.parquet", new_items, text=pa.array(cells, pa.list_(pa.float32(), 8)))
    with pytest.raises(CatalogueError, match=r"a.parquet has null in a column of fixed-size arrays: write .* as lists"):
        assign_files(base_tables["keep"], [epath.Path(path)], tmp_path / "shards")


def test_absent_blocks_are_masked_and_counted(base_tables, new_items, tmp_path):
    """The codes are those of features that say absent, and not those of vectors of zeros."""
    text, behaviour = new_items.features.blocks
    nowhere = np.arange(NEW) < 3
    items = Items(
        new_items.ids,
        ItemFeatures(
            (
                FeatureBlock("text", np.where(nowhere[:, None], 0, text.values), ~nowhere),
                FeatureBlock("behaviour", behaviour.values * 0, np.zeros(NEW, bool)),
            )
        ),
    )
    path = write_items(tmp_path / "a.parquet", items, behaviour=pa.nulls(NEW))
    codec = load_codec(base_tables["keep"])
    facts = assign_file(codec, path, tmp_path / "shard.parquet")
    assert (facts.items, facts.absent, facts.without_features) == (NEW, {"text": 3, "behaviour": NEW}, 3)
    codes = read_shard(epath.Path(tmp_path / "shard.parquet")).codes
    zeros = ItemFeatures(tuple(FeatureBlock(b.name, b.values, np.ones(NEW, bool)) for b in items.features.blocks))
    np.testing.assert_array_equal(codes, codec.assign(codec.encode(items.features)).codes)
    assert (codes != codec.assign(codec.encode(zeros)).codes).any()


BAD_ROWS = {
    "nan": (3, [float("nan")] * 8, r"row 4, item 'v3': block 'text' has nan in it"),
    "infinity": (0, [float("inf")] * 8, r"row 1, item 'v0': block 'text' has inf in it"),
    "too large for float32": (1, [1e300] * 8, r"row 2, item 'v1': block 'text' has inf in it"),
    "null inside": (4, [1.0] * 7 + [None], r"row 5, item 'v4': block 'text' has nan in it \(a null in a vector counts"),
    "too short": (
        2,
        [1.0] * 7,
        r"row 3, item 'v2': block 'text' has a vector of 7 numbers, the codebooks were made for 8",
    ),
    "empty": (2, [], r"row 3, item 'v2': block 'text' has a vector of 0 numbers"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_is_named(base_tables, tmp_path, kind):
    row, vector, message = BAD_ROWS[kind]
    items = draw(5, seed=0, first=0)
    text = items.features.block("text").values.tolist()
    text[row] = vector
    path = write_items(tmp_path / "bad.parquet", items, text=pa.array(text, pa.list_(pa.float64())))
    with pytest.raises(CatalogueError, match=f"bad.parquet, {message}"):
        assign_files(base_tables["keep"], [epath.Path(path)], tmp_path / "shards")
    assert list((tmp_path / "shards").iterdir()) == [], "nothing is left, neither a shard nor a half of one"


BAD_COLUMNS = {
    "no block": ({"text": None}, r"has no column 'text', only \['item_id', 'behaviour'\]"),
    "no ids": ({"item_id": None}, r"has no column 'item_id'"),
    "an id is null": ({"item_id": pa.array(["a", None, "c", "d", "e"])}, r"row 2: expected an item id, got none"),
    "ids are floats": (
        {"item_id": pa.array([1.0, 2, 3, 4, 5])},
        r"column 'item_id': expected text or integers, got double",
    ),
    "not lists": ({"text": pa.array([1.0] * 5)}, r"column 'text': expected lists of 8 numbers, got double"),
    "lists of text": ({"text": pa.array([["a"]] * 5)}, r"expected lists of 8 numbers, got list<element: string>"),
    "arrays of another length": (
        {"text": pa.array([[1.0] * 9] * 5, pa.list_(pa.float32(), 9))},
        r"block 'text' has vectors of 9 numbers, the codebooks were made for 8",
    ),
}


@pytest.mark.parametrize("kind", BAD_COLUMNS)
def test_a_bad_column_is_named(base_tables, tmp_path, kind):
    columns, message = BAD_COLUMNS[kind]
    path = write_items(tmp_path / "bad.parquet", draw(5, seed=0, first=0))
    table = pq.read_table(path)
    for name, column in columns.items():
        place = table.column_names.index(name)
        table = table.remove_column(place) if column is None else table.set_column(place, name, column)
    pq.write_table(table, path)
    with pytest.raises(CatalogueError, match=rf"bad.parquet.*{message}"):
        assign_files(base_tables["keep"], [epath.Path(path)], tmp_path / "shards")


def test_columns_of_the_last_file_are_looked_at_before_the_first_is_assigned(base_tables, in_files, tmp_path):
    files = in_files(3)
    pq.write_table(pq.read_table(files[2]).drop_columns("behaviour"), files[2])
    with pytest.raises(CatalogueError, match=r"part-02.parquet has no column 'behaviour'"):
        assign_files(base_tables["keep"], [epath.Path(path) for path in files], tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_a_half_written_input_is_named(base_tables, in_files, tmp_path):
    (path,) = in_files(1)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CatalogueError, match=r"part-00.parquet cannot be read as Parquet .* half-written"):
        assign_files(base_tables["keep"], [epath.Path(path)], tmp_path / "shards")


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(CatalogueError, match=r"nothing matches '.*no\*.parquet'"):
        new_item_files(str(tmp_path / "no*.parquet"))
    with pytest.raises(CatalogueError, match=r"there is no file .*a.parquet"):
        new_item_files([str(tmp_path / "a.parquet")])
    with pytest.raises(CatalogueError, match=r"got an empty list"):
        new_item_files([])
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.parquet").touch()
    with pytest.raises(CatalogueError, match=r"have one name, which their shards would share"):
        new_item_files(str(tmp_path / "*" / "a.parquet"))


def test_a_shard_does_not_replace_its_source(base_tables, in_files):
    (path,) = in_files(1)
    with pytest.raises(CatalogueError, match=r"choose another directory"):
        assign_files(base_tables["keep"], [epath.Path(path)], path.parent)
    assert NewItemFile(epath.Path(path), load_codec(base_tables["keep"]).encoder.inputs).num_rows == NEW


def test_a_process_that_is_not_one_of_them(base_tables, tmp_path):
    with pytest.raises(CatalogueError, match=r"expected a process index from 0 to .*, got 3 of 3"):
        assign_files(base_tables["keep"], [], tmp_path, 3, 3)
    with pytest.raises(CatalogueError, match=r"either a runner, .* or processes"):
        (tmp_path / "a.parquet").touch()
        files = [str(tmp_path / "a.parquet")]
        catalogue.assign_new_items(str(tmp_path), str(tmp_path), files, process_count=2, runner="DirectRunner")


def test_random_ids_say_nothing_about_new_items(old_items, in_files, tmp_path):
    split = corpus_of(old_items)
    build_sid_table(split, old_items.features, RandomIds((4, 4)), "keep", tmp_path / "sids")
    with pytest.raises(artifact.ArtifactError, match=r"has no codec.json: .* say nothing about new items"):
        assign_files(tmp_path / "sids", [epath.Path(path) for path in in_files(1)], tmp_path / "shards")


def test_a_table_that_is_not_complete_is_not_read(base_tables, tmp_path):
    load_codec(base_tables["keep"]).write_files(epath.Path(tmp_path))
    with pytest.raises(artifact.ArtifactError, match=r"there is no manifest.json: run the stage that makes it"):
        assign_files(tmp_path, [], tmp_path / "shards")
    pytest.importorskip("apache_beam")
    with pytest.raises(artifact.ArtifactError, match=r"there is no manifest.json: run the stage that makes it"):
        assign_files_on_beam(tmp_path, [], tmp_path / "shards", "DirectRunner")


def test_finished_shards_are_kept_and_stale_or_damaged_ones_made_again(base_tables, in_files, expected, tmp_path):
    files = [epath.Path(path) for path in in_files(4)]

    def run(table: str = "keep") -> list[int]:
        """Which shards were written by this run."""
        before = {path.name: path.stat().st_ino for path in (tmp_path / "shards").glob("*")}
        shards = assign_files(base_tables[table], files, tmp_path / "shards")
        return [n for n, path in enumerate(shards) if before.get(path.name) != pathlib.Path(path).stat().st_ino]

    assert run() == [0, 1, 2, 3]
    assert run() == []
    assert run("extra_digit") == [], "the codec is the same"
    shard = tmp_path / "shards" / "part-01.parquet"
    shard.write_bytes(shard.read_bytes()[:-9])
    (tmp_path / "shards" / ".part-03.parquet.0123.aside").touch()  # of a run that was killed
    table = pq.read_table(files[2])
    pq.write_table(table.set_column(0, "item_id", pa.array([f"n{row}" for row in range(len(table))])), files[2])
    assert run() == [1, 2]
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == [f"part-0{n}.parquet" for n in range(4)]
    found = contents(list((tmp_path / "shards").iterdir()))
    assert [row[1:] for row in found] == [row[1:] for row in expected]
    assert [row[0] for row in found[200:300]] == [f"n{row}" for row in range(100)]


def test_a_file_of_the_same_length_and_another_codec_make_a_shard_stale(base_tables, new_items, tmp_path):
    path = epath.Path(tmp_path / "a.parquet")
    ids = np.asarray(new_items.ids)

    def run(table: pathlib.Path, order: np.ndarray) -> list[str]:
        columns = {"item_id": ids[order].tolist()}
        columns |= {b.name: b.values[order].tolist() for b in new_items.features.blocks}
        pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False)
        (shard,) = assign_files(table, [path], tmp_path / "shards")
        return read_shard(shard).item_ids.to_pylist()

    forwards, backwards = np.arange(NEW), np.arange(NEW)[::-1]
    assert run(base_tables["keep"], forwards) == ids.tolist()
    length = path.stat().length
    assert run(base_tables["keep"], backwards) == ids[::-1].tolist()
    assert path.stat().length == length
    codec = load_codec(base_tables["keep"])
    SidTable.load(base_tables["keep"]).save(tmp_path / "other")
    Codec(codec.encoder, codec.codebooks[::-1]).write_files(epath.Path(tmp_path / "other"))
    before = read_shard(tmp_path / "shards" / "a.parquet").codes
    run(tmp_path / "other", backwards)
    assert read_shard(tmp_path / "shards" / "a.parquet").codes.max(axis=0).tolist() != before.max(axis=0).tolist()


def test_a_killed_run_goes_on(base_tables, tmp_path):
    """`plum` is killed (SIGKILL) in the middle of a file; run again, it keeps the shards that were finished."""
    items = draw(40_000, seed=3, first=0)
    for number, part in enumerate(np.array_split(np.arange(40_000), 8)):
        write_items(tmp_path / "new" / f"part-{number}.parquet", items.take(part))
    command = [
        *(sys.executable, "-m", "plum_jax.run", "--gin_file=gin/run/assign_new_items.gin"),
        f"--gin.TABLE='{base_tables['keep']}'",
        f"--gin.NEW_ITEMS='{tmp_path}/new/*.parquet'",
        f"--gin.MODEL_DIR='{tmp_path}/run'",
    ]
    shards = tmp_path / "run" / "new_item_shards"
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (list(shards.glob("part-2*")) and list(shards.glob(".part-*.aside"))):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        errors = process.stderr.read() if process.stderr else b""
    assert process.returncode == -signal.SIGKILL, errors.decode()
    finished = {path.name: path.stat().st_ino for path in shards.glob("part-*")}
    assert 3 <= len(finished) < 8
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    after = {path.name: path.stat().st_ino for path in shards.iterdir()}
    assert len(after) == 8 and finished.items() <= after.items()
    codec = load_codec(base_tables["keep"])
    codes = codec.assign(codec.encode(items.features)).codes
    assert [row[:2] for row in contents(list(shards.iterdir()))] == list(zip(items.ids, codes.tolist(), strict=True))
    absent = int((~items.features.block("behaviour").present).sum())
    counts = {"items": 40_000, "absent_blocks": {"text": 0, "behaviour": absent}, "items_without_features": 0}
    assert json.loads(done.stdout[: done.stdout.rindex("}") + 1]) == counts


def test_memory_does_not_grow_with_the_file(base_tables, tmp_path, monkeypatch):
    """No chunk is larger than it may be, and the one before is gone when the next is read."""
    items = draw(3000, seed=3, first=0)
    path = write_items(tmp_path / "a.parquet", items)
    monkeypatch.setattr(new_items_module, "NUMBERS_AT_ONCE", 100 * sum(DIMS.values()))
    source = NewItemFile(epath.Path(path), load_codec(base_tables["keep"]).encoder.inputs)
    rows = [(chunk.first_row, len(chunk.item_ids)) for chunk in source.chunks()]
    assert sum(count for _, count in rows) == 3000 and max(count for _, count in rows) <= 100
    pa.default_memory_pool().release_unused()
    held = [pa.total_allocated_bytes() for chunk in source.chunks() if len(chunk.item_ids)]
    assert max(held[len(held) // 2 :]) <= 2 * max(held[: len(held) // 2])
