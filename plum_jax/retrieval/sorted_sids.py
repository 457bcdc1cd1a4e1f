"""The distinct Semantic IDs of a catalogue in lexicographic order: sorted once, from which every trie is cut."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from plum_jax import artifact

_WORD_BITS = 64


class SidSetError(ValueError):
    """Codes, or a choice of items, that make no set of SIDs to search among."""


@dataclasses.dataclass(frozen=True, eq=False)
class SortedSids:
    """Distinct SIDs, by level. Rows have the numbers that they have in `SidTable.items_of_sid().sids`.

    Attributes:
      columns: for each level uint16 [S] (uint32 for a codebook of more than 65,536), the codes of row 0, 1, ...
      row_of_item: int32 [N].
      codebook_sizes: W of each level.
    """

    columns: tuple[np.ndarray, ...]
    row_of_item: np.ndarray
    codebook_sizes: tuple[int, ...]

    @classmethod
    def from_codes(cls, codes: np.ndarray, codebook_sizes: Sequence[int]) -> SortedSids:
        """Of codes [N, L] in any order, repeats allowed. 20 million items of 8 levels: about 8 seconds, 1 GB.

        Raises:
          SidSetError: no item, another number of levels than `codebook_sizes`, or a code outside its codebook.
        """
        codes, sizes = np.asarray(codes), tuple(int(size) for size in codebook_sizes)
        _check(codes, sizes)
        words = _packed(codes, sizes)
        order = _sorted_order(words)
        opens = np.zeros(len(order), bool)  # opens[i]: the i-th item in order has another SID than the one before
        opens[0] = True
        for word in words:
            ordered = word[order]
            opens[1:] |= ordered[1:] != ordered[:-1]
        row_of_item = np.empty(len(order), np.int32)
        row_of_item[order] = np.cumsum(opens, dtype=np.int32) - 1
        kept = order[opens]
        columns = tuple(codes[kept, level].astype(_code_dtype(size)) for level, size in enumerate(sizes))
        return cls(columns, row_of_item, sizes)

    def __len__(self) -> int:
        return len(self.columns[0])

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the set of SIDs: no order or number of items plays a part."""
        return self.fingerprint_of(None)

    def fingerprint_of(self, rows: np.ndarray | None) -> str:
        """Hash of the SIDs of these sorted rows (None: of all)."""
        columns = self.columns if rows is None else tuple(column[rows] for column in self.columns)
        return artifact.fingerprint(list(self.codebook_sizes), *columns)

    def rows_of(self, items: np.ndarray) -> np.ndarray:
        """Rows, sorted and distinct, of a subset of the items: a boolean mask [N], or item numbers in any order.

        Raises:
          SidSetError: an empty subset, a mask of another length, or an item number that the table does not have.
        """
        items, num_items = np.asarray(items), len(self.row_of_item)
        if items.dtype == bool and items.shape != (num_items,):
            raise SidSetError(f"expected a mask of {num_items} items, got shape {items.shape}")
        if items.size == 0 or (items.dtype == bool and not items.any()):
            raise SidSetError("expected at least one item to search among, got an empty set: check the subset's filter")
        if items.dtype != bool and (items.min() < 0 or items.max() >= num_items):
            raise SidSetError(f"expected item numbers 0..{num_items - 1}, got {items.min()}..{items.max()}")
        chosen = np.zeros(len(self), bool)
        chosen[self.row_of_item[items]] = True
        return np.flatnonzero(chosen).astype(np.int32)


def _check(codes: np.ndarray, sizes: tuple[int, ...]) -> None:
    if codes.ndim != 2 or codes.shape[1] != len(sizes) or not sizes:
        raise SidSetError(f"expected codes [N, {len(sizes)}] for codebook_sizes={sizes}, got shape {codes.shape}")
    if len(codes) == 0:
        raise SidSetError("expected at least one item to search among, got an empty set: check the subset's filter")
    for level, size in enumerate(sizes):
        column = codes[:, level]
        if column.min() < 0 or column.max() >= size:
            item = int(np.flatnonzero((column < 0) | (column >= size))[0])
            raise SidSetError(f"row {item} has code {column[item]} at level {level}, expected 0..{size - 1}")


def _code_dtype(size: int) -> type[np.unsignedinteger]:
    return np.uint16 if size <= 1 << 16 else np.uint32


def _packed(codes: np.ndarray, sizes: tuple[int, ...]) -> list[np.ndarray]:
    """uint64 [N] words, the first levels in the first word's high bits, so that their order is that of the SIDs."""
    words: list[np.ndarray] = []
    free = 0
    for level, size in enumerate(sizes):
        bits = max(1, (size - 1).bit_length())
        if bits > free:
            words.append(np.zeros(len(codes), np.uint64))
            free = _WORD_BITS
        words[-1] <<= np.uint64(bits)
        words[-1] |= codes[:, level].astype(np.uint64)
        free -= bits
    return words


def _sorted_order(words: list[np.ndarray]) -> np.ndarray:
    """int32 [N]: the items in the order of their words. A later word is looked at only where the ones before tie."""
    order = np.argsort(words[0]).astype(np.int32)
    ordered = words[0][order]
    same = ordered[1:] == ordered[:-1]  # item i + 1 of the order ties with item i in all words so far
    del ordered
    for word in words[1:]:
        if not same.any():
            break
        tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
        run = np.cumsum(np.append(True, ~same))[tied]
        order[tied] = order[tied][np.lexsort((word[order[tied]], run))]
        ordered = word[order[tied]]
        adjacent = np.diff(tied) == 1
        still = np.zeros_like(same)
        still[tied[:-1][adjacent]] = ((run[1:] == run[:-1]) & (ordered[1:] == ordered[:-1]))[adjacent]
        same = still
    return order
