"""SidTable: lookup equals a dictionary, saving loses nothing, half a table is never read."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from plum_jax import artifact
from plum_jax.semantic_ids import table as sid_table
from plum_jax.semantic_ids.table import SidTable, SidTableError, SidTableMismatch

settings = hypothesis.settings(max_examples=40, deadline=None)


@st.composite
def tables(draw: st.DrawFn) -> SidTable:
    sizes = draw(st.lists(st.sampled_from([1, 2, 3, 5, 2048]), min_size=1, max_size=8))
    num_items = draw(st.integers(1, 30))
    codes = draw(hnp.arrays(np.int32, (num_items, len(sizes)), elements=st.integers(0, 4))) % np.array(sizes)
    popularity = draw(hnp.arrays(np.int64, num_items, elements=st.integers(0, 3)))
    return SidTable.create(codes, sizes, [f"item {i}" for i in range(num_items)], popularity=popularity)


def items_by_sid(table: SidTable) -> dict[tuple, list[int]]:
    groups: dict[tuple, list[int]] = {}
    for item, codes in enumerate(table.codes.tolist()):
        groups.setdefault(tuple(codes), []).append(item)
    return {sid: sorted(items, key=lambda i: table.item_rank[i]) for sid, items in groups.items()}


@settings
@hypothesis.given(tables(), st.integers(0, 2**32 - 1))
def test_lookup_equals_a_dictionary(table: SidTable, seed: int):
    rng = np.random.default_rng(seed)
    queries = rng.integers(-1, np.minimum(np.array(table.codebook_sizes), 5) + 1, (4, 10, table.num_levels))
    queries[0, :5] = table.codes[rng.integers(table.num_items, size=5)]
    index, expected = table.items_of_sid(), items_by_sid(table)
    rows = table.lookup(queries)
    assert rows.shape == (4, 10)
    for row, query in zip(rows.ravel(), queries.reshape(-1, table.num_levels).tolist(), strict=True):
        assert index.items_at(row).tolist() == expected.get(tuple(query), [])
        assert row == -1 or index.sids[row].tolist() == query


@settings
@hypothesis.given(tables())
def test_unique_sids_are_sorted_and_hold_every_item_once(table: SidTable):
    index = table.items_of_sid()
    assert index.sids.tolist() == [list(sid) for sid in sorted(items_by_sid(table))]
    assert sorted(index.items.tolist()) == list(range(table.num_items))
    assert index.offsets[-1] == table.num_items


def test_eight_levels_of_2048_do_not_overflow():
    codes = np.array([[2047] * 8, [2047] * 7 + [2046], [0] * 8], np.int32)
    table = SidTable.create(codes, [2048] * 8, ["a", "b", "c"])
    assert table.lookup(codes).tolist() == [2, 1, 0]
    assert table.lookup(np.array([2047] * 7 + [0])) == -1


def test_rank_is_by_popularity_then_by_index():
    codes = np.array([[0, 0], [1, 1], [0, 0], [0, 0], [1, 1]])
    table = SidTable.create(codes, (2, 2), list("abcde"), popularity=np.array([5, 1, 9, 5, 1]))
    assert table.item_rank.tolist() == [1, 0, 0, 2, 1]
    assert table.items_of_sid().items_at(0).tolist() == [2, 0, 3]


def example() -> SidTable:
    codes = np.array([[0, 1, 2], [3, 2, 1], [0, 1, 2]])
    return SidTable.create(codes, (4, 4, 4), ["x", "ü☃", "z"], popularity=[1, 2, 3], corpus_fingerprint="c0")


def test_save_and_load_give_the_same_table(tmp_path):
    table = example()
    table.save(tmp_path / "sids")
    loaded = SidTable.load(tmp_path / "sids")
    assert loaded.fingerprint == table.fingerprint
    assert loaded.codes.dtype == np.int32
    assert loaded.item_ids.tolist() == ["x", "ü☃", "z"]
    np.testing.assert_array_equal(loaded.item_rank, table.item_rank)
    assert loaded.codebook_sizes == (4, 4, 4)
    assert loaded.sid_string(1) == "A3 B2 C1"


def test_fingerprint_depends_on_every_part():
    base = example()
    codes = base.codes.copy()
    codes[0, 0] = 1
    others = [
        SidTable.create(codes, (4, 4, 4), base.item_ids, popularity=[1, 2, 3], corpus_fingerprint="c0"),
        SidTable.create(base.codes, (4, 4, 5), base.item_ids, popularity=[1, 2, 3], corpus_fingerprint="c0"),
        SidTable.create(base.codes, (4, 4, 4), ["x", "y", "z"], popularity=[1, 2, 3], corpus_fingerprint="c0"),
        SidTable.create(base.codes, (4, 4, 4), base.item_ids, popularity=[3, 2, 1], corpus_fingerprint="c0"),
        SidTable.create(base.codes, (4, 4, 4), base.item_ids, popularity=[1, 2, 3], corpus_fingerprint="c1"),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert example().fingerprint == base.fingerprint


def test_a_table_killed_while_written_is_never_read(tmp_path, monkeypatch):
    def die(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(artifact, "write_json", die)
    with pytest.raises(KeyboardInterrupt):
        example().save(tmp_path / "sids")
    with pytest.raises(artifact.ArtifactError, match="no manifest.json: run the stage that makes it"):
        SidTable.load(tmp_path / "sids")


def test_changed_files_are_refused(tmp_path):
    example().save(tmp_path / "sids")
    other = SidTable.create(np.zeros((3, 3)), (4, 4, 4), ["x", "y", "z"])
    other.write_files(sid_table.epath.Path(tmp_path / "sids"))
    with pytest.raises(artifact.ArtifactError, match="the files were changed"):
        SidTable.load(tmp_path / "sids")


def test_require_refuses_another_table():
    example().require(example().fingerprint)
    with pytest.raises(SidTableMismatch, match=r"checkpoint 7 was made with SidTable abc, this one is .*train again"):
        example().require("abc", what="checkpoint 7")


@pytest.mark.parametrize(
    ("codes", "sizes", "ids", "message"),
    [
        ([[0, 4]], (4, 4), ["a"], "item row 0 has code 4 at level 1, expected 0 to 3"),
        ([[0, -1]], (4, 4), ["a"], "has code -1 at level 1"),
        ([[0, 0]], (4,), ["a"], r"expected codes \[items, 1\]"),
        ([[0], [1]], (4,), ["a", "a"], "item id 'a' occurs more than once"),
        ([[0], [1]], (4,), ["a"], "expected 2 item ids and ranks, got 1 and 2"),
        (np.zeros((1, 27)), (4,) * 27, ["a"], "at most 26 levels, got 27"),
        (np.zeros((0, 2)), (4, 4), [], "expected codes"),
    ],
)
def test_wrong_tables_say_what_is_wrong(codes, sizes, ids, message):
    with pytest.raises(SidTableError, match=message):
        SidTable.create(np.array(codes), sizes, ids)


def test_lookup_of_another_length_says_so():
    with pytest.raises(SidTableError, match=r"expected codes \[..., 3\], got shape \(2, 4\)"):
        example().lookup(np.zeros((2, 4), np.int32))
