"""Which tables a trained model may meet: those in which all that it has learnt is as it was."""

import dataclasses

import numpy as np
import pytest

from plum_jax.semantic_ids.catalogue.accepted import require_old_ids, with_new_items
from plum_jax.semantic_ids.table import SidTable, SidTableMismatch

SIZES = (4, 4)
BASE = SidTable.create([[0, 1], [2, 3], [0, 1]], SIZES, ["a", "b", "c"], popularity=np.array([1, 5, 3]))


def grown(codes, ids, sizes=SIZES) -> SidTable:
    return SidTable.create(codes, sizes, ids)


def test_old_items_come_first_in_their_order_and_keep_all_they_had():
    wanted = grown([[3, 3], [0, 1], [2, 3], [1, 1], [0, 1]], ["x", "c", "b", "y", "a"])
    table = with_new_items(BASE, wanted, "there")
    assert table.item_ids.tolist() == ["a", "b", "c", "x", "y"]
    np.testing.assert_array_equal(table.codes[:3], BASE.codes)
    by_id = dict(zip(wanted.item_ids.tolist(), wanted.item_rank.tolist(), strict=True))
    assert table.item_rank.tolist() == [by_id[item] for item in table.item_ids.tolist()]
    assert require_old_ids(BASE, wanted, "there") == 2
    assert with_new_items(BASE, BASE, "there").fingerprint == BASE.fingerprint


def test_a_table_that_changes_what_was_learnt_is_refused_by_name():
    for table, message in (
        (grown([[0, 1], [2, 2], [0, 1]], ["a", "b", "c"]), "such as 'b': A2 B3 there, A2 B2 here"),
        (grown([[0, 1], [2, 3]], ["a", "b"]), "lacks 1 of the 3 items that the model was trained with, such as 'c'"),
        (
            grown([[0, 1], [2, 3], [0, 1]], ["a", "b", "c"], (4, 5)),
            "codebooks (4, 5), the model was trained with (4, 4)",
        ),
    ):
        with pytest.raises(SidTableMismatch) as error:
            with_new_items(BASE, table, "there")
        assert message in str(error.value) and str(error.value).startswith("there ")
    # Going on with a corpus that has lost an item is no harm to what is left.
    assert require_old_ids(BASE, grown([[0, 1], [1, 1]], ["a", "x"]), "there") == 1
    with pytest.raises(SidTableMismatch, match="other Semantic IDs for 1 of 1 items"):
        require_old_ids(BASE, dataclasses.replace(grown([[0, 1], [1, 1]], ["x", "a"])), "there")
