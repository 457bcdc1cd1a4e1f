"""Items that a user is not to get, kept out inside the search, so that the beams are full of others."""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.semantic_ids.table import SidIndex

_LEAST_ROWS = 16  # of an exclusion; more are powers of two, each of which compiles once


@flax.struct.dataclass
class Exclusion:
    """Prefixes that no beam of a user may take: nothing is left under them. A search gives what it would give over the
    trie of the items that are left.

    Attributes:
      codes: int32 `[B, E, L]`, an excluded SID in each row.
      lengths: int32 `[B, E]`, codes of the shortest prefix of that SID under which nothing is left; 0: no exclusion.
    """

    codes: jax.Array
    lengths: jax.Array

    def forbidden(self, beams: jax.Array, size: int) -> jax.Array:
        """bool `[B, m, W]`: which of `size` codes after `beams` [B, m, l] end a forbidden prefix."""
        level = beams.shape[2]
        under = jnp.all(beams[:, :, None] == self.codes[:, None, :, :level], axis=3)
        under &= (self.lengths == level + 1)[:, None]
        code = self.codes[:, :, level, None] == jnp.arange(size)
        counts = jnp.einsum("BME,BEW->BMW", under.astype(jnp.float32), code.astype(jnp.float32))
        return counts > 0


def exclude_items(
    index: SidIndex,
    user: np.ndarray,
    item: np.ndarray,
    sets: np.ndarray,
    item_sets: Sequence[np.ndarray | None] = (None,),
) -> Exclusion:
    """What is left of sets of items without some. A SID is excluded where all items of the user's set that have it are.

    Args:
      index: the SIDs of all items.
      user, item: int [P], pairs to exclude, in any order; repeats do no harm.
      sets: int [B], the set that each user's search is constrained to.
      item_sets: the sets, each a bool mask [N], item numbers, or None for all items.
    """
    parts = []
    for number in np.unique(sets):
        chosen = item_sets[number]
        allowed = np.full(len(index.items), chosen is None)
        allowed[slice(None) if chosen is None else chosen] = True
        here = sets[user] == number
        parts.append(_excluded_rows(index, user[here], item[here], allowed))
    user, row, length = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(user, kind="stable")
    user, row, length = user[order], row[order], length[order]

    most = int(np.bincount(user, minlength=1).max())
    width = max(_LEAST_ROWS, 1 << (most - 1).bit_length())
    place = np.arange(len(user)) - np.searchsorted(user, user)
    codes = np.zeros((len(sets), width, index.sids.shape[1]), np.int32)
    lengths = np.zeros((len(sets), width), np.int32)
    codes[user, place], lengths[user, place] = index.sids[row], length
    return Exclusion(jnp.asarray(codes), jnp.asarray(lengths))


def _excluded_rows(
    index: SidIndex, user: np.ndarray, item: np.ndarray, allowed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, rows of SIDs without an item left, and codes of the shortest empty prefix of each, of one set of items."""
    num_sids, num_items = len(index.sids), len(index.items)
    row_of_item = np.empty(num_items, np.int64)
    row_of_item[index.items] = np.repeat(np.arange(num_sids), np.diff(index.offsets))
    items_of_row = np.bincount(row_of_item[allowed], minlength=num_sids)
    left = np.flatnonzero(items_of_row)  # rows of the set's SIDs, rising

    pairs = np.unique(user.astype(np.int64) * num_items + item)
    pairs = pairs[allowed[pairs % num_items]]
    rows, counts = np.unique(pairs // num_items * num_sids + row_of_item[pairs % num_items], return_counts=True)
    rows = rows[counts == items_of_row[rows % num_sids]]
    user, row = np.divmod(rows, num_sids)
    return user, row, _shortest_empty(index.sids[left], np.asarray(np.searchsorted(left, row)), user)


def _shortest_empty(sids: np.ndarray, row: np.ndarray, user: np.ndarray) -> np.ndarray:
    """int [R]: codes of the shortest prefix of each excluded row of which all rows are excluded.

    Args:
      sids: [S, L], sorted.
      row: int [R], excluded rows of `sids`, rising within a user.
      user: int [R], rising.

    Rows with one prefix follow each other. So a prefix of a row is empty if neither the last row before nor the first
    row after its run of excluded ones has it: it must be one code longer than what the row shares with either.
    """
    number = np.arange(len(row))
    opens = np.ones(len(row), bool)  # opens[i]: a run begins
    opens[1:] = (np.diff(row) != 1) | (np.diff(user) != 0)
    before = row[np.maximum.accumulate(np.where(opens, number, 0))] - 1
    ends = np.append(opens[1:], True)[: len(row)]
    after = row[np.minimum.accumulate(np.where(ends, number, len(row))[::-1])[::-1]] + 1

    def shared(other: np.ndarray) -> np.ndarray:
        real = (other >= 0) & (other < len(sids))
        same = sids[np.where(real, other, 0)] == sids[row]
        return np.where(real, np.logical_and.accumulate(same, axis=1).sum(axis=1), 0)

    return 1 + np.maximum(shared(before), shared(after))
