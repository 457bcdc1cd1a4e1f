"""Whether a model that was trained with one SidTable may meet another: only where all that it has learnt stays true.

The rule: the same codebooks, so that the vocabulary is the same; and every item of the old table has in the new one the
Semantic ID that it had, bit for bit. Items may have come; none may have gone or moved.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.semantic_ids.table import SidTable, SidTableMismatch


def with_new_items(base: SidTable, grown: SidTable, where: str) -> SidTable:
    """`grown` with the items of `base` first, in their order, so that their numbers are what they were.

    Args:
      base: what the model was trained with.
      grown: what it is to meet.
      where: that one's place, for messages.

    Raises:
      SidTableMismatch: other codebooks, an item that is gone, or one whose ID has changed: the first is named.
    """
    rows = _rows(grown, base)
    if (rows < 0).any():
        gone = np.flatnonzero(rows < 0)
        raise SidTableMismatch(
            f"{where} lacks {len(gone)} of the {base.num_items} items that the model was trained with, such as "
            f"{str(base.item_ids[gone[0]])!r}: extend the model's own table (gin/run/extend_catalogue.gin)"
        )
    require_old_ids(base, grown, where)
    new = np.setdiff1d(np.arange(grown.num_items), rows)
    order = np.concatenate([rows, new])
    return dataclasses.replace(
        grown, codes=grown.codes[order], item_ids=grown.item_ids[order], item_rank=grown.item_rank[order]
    )


def require_old_ids(base: SidTable, grown: SidTable, where: str) -> int:
    """How many items are new in `grown`; items of `base` that it lacks are passed over.

    Raises:
      SidTableMismatch: other codebooks, or an item whose ID has changed: the first is named.
    """
    if grown.codebook_sizes != base.codebook_sizes:
        raise SidTableMismatch(
            f"{where} has codebooks {grown.codebook_sizes}, the model was trained with {base.codebook_sizes}: its "
            "tokens mean other codes. Extend the model's own table (gin/run/extend_catalogue.gin)"
        )
    rows = _rows(grown, base)
    known = np.flatnonzero(rows >= 0)
    moved = known[(grown.codes[rows[known]] != base.codes[known]).any(axis=1)]
    if len(moved):
        first = int(moved[0])
        raise SidTableMismatch(
            f"{where} has other Semantic IDs for {len(moved)} of {len(known)} items that the model was trained with, "
            f"such as {str(base.item_ids[first])!r}: {base.sid_string(first)} there, "
            f"{grown.sid_string(int(rows[first]))} here. Extend the model's own table, or train again"
        )
    return grown.num_items - len(known)


def _rows(grown: SidTable, base: SidTable) -> np.ndarray:
    """int64 [items of base]: their rows in `grown`, -1 where there is none."""
    row_of = {item: row for row, item in enumerate(grown.item_ids.tolist())}
    return np.array([row_of.get(item, -1) for item in base.item_ids.tolist()], np.int64)
