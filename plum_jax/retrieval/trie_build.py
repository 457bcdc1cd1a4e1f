"""The arrays of a trie from sorted SIDs, one vectorised pass for each level. NumPy only."""

from __future__ import annotations

import dataclasses

import numpy as np

_WORD = 32  # bits of a word of a bitmap
_DENSE_SHARE = 8  # a level whose widest prefix has W / 8 continuations is stored as bitmaps: lists would be as long
_SMALL_BITMAPS = 1 << 20  # bytes that the bitmaps of a level may take in any trie


@dataclasses.dataclass(frozen=True)
class LevelArrays:
    """One level of a trie, see `trie.TrieLevel`, whose fields these are."""

    codes: np.ndarray
    first: np.ndarray
    child_index: np.ndarray
    child_count: np.ndarray
    bitmap: np.ndarray
    num_rows: int
    fan_out: int
    window: int


@dataclasses.dataclass(frozen=True)
class TrieArrays:
    """All levels, the empty prefix of each set, and the most prefixes of each length that a set has."""

    levels: tuple[LevelArrays, ...]
    root_index: np.ndarray
    root_count: np.ndarray
    num_prefixes: tuple[int, ...]


def build(columns: tuple[np.ndarray, ...], set_starts: np.ndarray, sizes: tuple[int, ...], window: int) -> TrieArrays:
    """The trie of sets of sorted distinct SIDs, one set after the other.

    Args:
      columns: for each level [S], codes.
      set_starts: the first row of each set.
      sizes: W of each level.
      window: a prefix of at most so many rows is searched in the rows themselves.
    """
    num_rows = len(columns[0])
    shared = _shared_levels(columns, set_starts)
    parents, of_node = set_starts.astype(np.int32), np.ones(len(set_starts), bool)
    levels: list[LevelArrays] = []
    links: list[tuple[np.ndarray, np.ndarray]] = []  # how the prefixes of each length are entered: index and count
    num_prefixes = []
    for level, size in enumerate(sizes):
        rows = np.diff(parents, append=np.int32(num_rows))
        last = level == len(sizes) - 1
        children = np.arange(num_rows, dtype=np.int32) if last else _rows_where(shared <= level)
        num_prefixes.append(int(np.diff(np.searchsorted(children, set_starts), append=len(children)).max()))
        opens = _rows_where(shared[children] < level)  # the child that each parent begins with
        dense = not last and bool(of_node.all()) and _is_dense(opens, len(children), size, num_rows)
        is_node = np.full(len(rows), dense) if dense or last else rows > window
        links.append(_links(parents, rows, is_node, of_node))
        arrays, of_node = _level(columns[level], children, opens, rows, is_node, size, dense)
        levels.append(arrays)
        parents = children
    for level in range(len(sizes) - 1):
        index, count = links[level + 1]
        most = sizes[-1] if level == len(sizes) - 2 else window
        room = _room(len(index), 6) + levels[level].fan_out
        levels[level] = dataclasses.replace(
            levels[level],
            child_index=_padded(index, room),
            child_count=_padded(count.astype(np.min_scalar_type(most)), room),
        )
    return TrieArrays(tuple(levels), *links[0], tuple(num_prefixes))


def with_room(array: np.ndarray) -> np.ndarray:
    """`array` with zeros after it, so that sets of nearly the same size have arrays of the same size."""
    return _padded(array, _room(len(array), 6))


def _shared_levels(columns: tuple[np.ndarray, ...], set_starts: np.ndarray) -> np.ndarray:
    """int8 [S]: how many first codes a row shares with the row before; -1 where a set begins."""
    shared = np.full(len(columns[0]), len(columns), np.int8)
    for level in reversed(range(len(columns))):
        shared[1:][columns[level][1:] != columns[level][:-1]] = level
    shared[set_starts] = -1
    return shared


def _rows_where(condition: np.ndarray) -> np.ndarray:
    return np.flatnonzero(condition).astype(np.int32)


def _is_dense(opens: np.ndarray, num_children: int, size: int, num_rows: int) -> bool:
    """Whether bitmaps of this level's parents are worth it and small: at most a byte for each row."""
    if len(opens) * size > 8 * max(num_rows, _SMALL_BITMAPS):
        return False
    return _DENSE_SHARE * int(np.diff(opens, append=np.int32(num_children)).max()) >= size


def _links(parents: np.ndarray, rows: np.ndarray, is_node: np.ndarray, of_node: np.ndarray) -> tuple:
    """What leads to each of the prefixes whose own parent is a node: number and 0 of nodes, first row and rows else."""
    if not of_node.any():
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    number = np.cumsum(is_node, dtype=np.int32) - 1
    is_node = is_node[of_node]
    return np.where(is_node, number[of_node], parents[of_node]), np.where(is_node, 0, rows[of_node]).astype(np.int32)


def _level(
    column: np.ndarray,
    children: np.ndarray,
    opens: np.ndarray,
    rows: np.ndarray,
    is_node: np.ndarray,
    size: int,
    dense: bool,
) -> tuple[LevelArrays, np.ndarray]:
    """A level without its links to the next, and of each child whether its parent is a node."""
    num_children = np.diff(opens, append=np.int32(len(children)))
    of_node = np.repeat(is_node, num_children) if is_node.any() else np.zeros(len(children), bool)
    node_children = num_children[is_node]
    window = 0 if is_node.all() else int(rows[~is_node].max())
    fan_out = size if dense else _room(max(window, int(node_children.max(initial=0))), 3)
    num_rows = 0 if is_node.all() else _room(len(column), 6)
    entries = column[children[of_node]] if not dense else column[:0]
    first = np.append(0, np.cumsum(node_children)).astype(np.int32) + np.int32(num_rows)
    arrays = LevelArrays(
        codes=np.concatenate(
            [_padded(column if num_rows else column[:0], num_rows), _padded_entries(entries, fan_out)]
        ),
        first=_padded(first, _room(len(first), 6), first[-1]) if is_node.any() else first[:0],
        child_index=np.zeros(0, np.int32),
        child_count=np.zeros(0, np.uint8),
        bitmap=_bitmap(column[children], num_children, size) if dense else np.zeros((0, 0), np.uint32),
        num_rows=num_rows,
        fan_out=fan_out,
        window=_room(window, 3),
    )
    return arrays, of_node


def _bitmap(codes: np.ndarray, num_children: np.ndarray, size: int) -> np.ndarray:
    """uint32 `[parents, ceil(W / 32)]`: bit c % 32 of word c // 32 says whether code c continues the parent."""
    words = -(-size // _WORD)
    bits = np.zeros((_room(len(num_children), 6), words * _WORD), bool)
    bits[np.repeat(np.arange(len(num_children)), num_children), codes] = True
    return np.packbits(bits, axis=1, bitorder="little").view("<u4").astype(np.uint32)


def _padded_entries(entries: np.ndarray, fan_out: int) -> np.ndarray:
    """With room for a whole fan-out after the last one, so that reading one needs no bound."""
    return _padded(entries, (_room(len(entries), 6) if len(entries) else 0) + fan_out)


def _room(count: int, bits: int) -> int:
    """`count` rounded up to so many significant bits: sets of nearly the same size then share a compiled program."""
    step = 1 << max(0, count.bit_length() - bits)
    return -(-count // step) * step


def _padded(array: np.ndarray, length: int, value: int = 0) -> np.ndarray:
    return np.concatenate([array, np.full(length - len(array), value, array.dtype)])
