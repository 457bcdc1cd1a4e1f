"""The SidTable: which Semantic ID each item has, the contract between quantiser, vocabulary, tasks and beam search."""

from __future__ import annotations

import dataclasses
import functools
import json
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from plum_jax import artifact

KIND = "sid_table"
LEVEL_LETTERS = string.ascii_uppercase  # level 0 is A, level 1 is B, ...: at most 26 levels
_TABLE_FILE = "table.parquet"
_METADATA_FILE = "table.json"


class SidTableError(ValueError):
    """Codes, sizes and item ids that do not make a table."""


class SidTableMismatch(ValueError):
    """Something trained on one SidTable meets another."""


@dataclasses.dataclass(frozen=True, eq=False)
class SidIndex:
    """From Semantic IDs to items: the table's unique SIDs in lexicographic order, and the items of each.

    Attributes:
      sids: int32 [S, L], unique, sorted.
      offsets: int64 [S + 1]; the items of row s are `items[offsets[s]:offsets[s + 1]]`.
      items: int32 [N], item indexes, by SID and then by `item_rank`.
      prefix_keys: for each level the sorted int64 keys `parent prefix * W_l + code` of the prefixes that exist; a
        prefix's number is its place in its level's keys.
    """

    sids: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    prefix_keys: tuple[np.ndarray, ...]
    codebook_sizes: tuple[int, ...]

    def lookup(self, codes: np.ndarray) -> np.ndarray:
        """Row in `sids` of each SID of codes [..., L], int64 [...]; -1 for SIDs that no item has."""
        codes = np.asarray(codes)
        if codes.shape[-1] != len(self.codebook_sizes):
            raise SidTableError(f"expected codes [..., {len(self.codebook_sizes)}], got shape {codes.shape}")
        row = np.zeros(codes.shape[:-1], np.int64)
        exists = np.ones(codes.shape[:-1], bool)
        for level, (keys, size) in enumerate(zip(self.prefix_keys, self.codebook_sizes, strict=True)):
            code = codes[..., level].astype(np.int64)
            key = row * size + code
            row = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            exists &= (code >= 0) & (code < size) & (keys[row] == key)
        return np.where(exists, row, -1)

    def items_at(self, row: int) -> np.ndarray:
        """Item indexes (int32, in the order of `item_rank`) that share the SID of this row; none for row -1."""
        return self.items[self.offsets[row] : self.offsets[row + 1]] if row >= 0 else self.items[:0]


@dataclasses.dataclass(frozen=True, eq=False)
class SidTable:
    """Semantic IDs of all items of a corpus.

    Attributes:
      codes: int32 [N, L], row = item index of the corpus.
      codebook_sizes: number of codes of each level (an extra digit counts as a level).
      item_ids: str [N].
      collision_policy: how items that met on one SID were treated ("keep", "extra_digit", "reassign").
      corpus_fingerprint: of the corpus whose items these are.
      item_rank: int32 [N], place of an item among those that share its SID: training popularity descending, then
        item index. `create` computes it.
    """

    codes: np.ndarray
    codebook_sizes: tuple[int, ...]
    item_ids: np.ndarray
    collision_policy: str
    corpus_fingerprint: str
    item_rank: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", np.ascontiguousarray(self.codes, np.int32))
        object.__setattr__(self, "item_rank", np.ascontiguousarray(self.item_rank, np.int32))
        object.__setattr__(self, "item_ids", np.asarray(self.item_ids, dtype=np.str_))
        object.__setattr__(self, "codebook_sizes", tuple(int(size) for size in self.codebook_sizes))
        _check(self)

    @classmethod
    def create(
        cls,
        codes: np.ndarray,
        codebook_sizes: Sequence[int],
        item_ids: Sequence[str],
        *,
        popularity: np.ndarray | None = None,
        collision_policy: str = "keep",
        corpus_fingerprint: str = "",
    ) -> SidTable:
        """A table whose items that share a SID are ranked by popularity [N] (training events), then by item index."""
        codes = np.asarray(codes, np.int32)
        popularity = np.zeros(len(codes)) if popularity is None else np.asarray(popularity)
        if popularity.shape != (len(codes),):
            raise SidTableError(f"expected a popularity for each of {len(codes)} items, got shape {popularity.shape}")
        return cls(
            codes=codes,
            codebook_sizes=tuple(codebook_sizes),
            item_ids=np.asarray(item_ids, dtype=np.str_),
            collision_policy=collision_policy,
            corpus_fingerprint=corpus_fingerprint,
            item_rank=rank_within_sid(codes, popularity),
        )

    @property
    def num_items(self) -> int:
        return self.codes.shape[0]

    @property
    def num_levels(self) -> int:
        return len(self.codebook_sizes)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the whole content: codes, sizes, item ids and ranks, policy, corpus."""
        return artifact.fingerprint(
            self.codes,
            list(self.codebook_sizes),
            "\n".join(self.item_ids.tolist()),
            self.collision_policy,
            self.corpus_fingerprint,
            self.item_rank,
        )

    @functools.cached_property
    def _index(self) -> SidIndex:
        return _build_index(self)

    def items_of_sid(self) -> SidIndex:
        """The reverse direction: unique SIDs and the items of each. Built once."""
        return self._index

    def lookup(self, codes: np.ndarray) -> np.ndarray:
        """Row in `items_of_sid().sids` of each SID of codes [..., L]; -1 for SIDs that no item has."""
        return self._index.lookup(codes)

    def sid_string(self, item: int) -> str:
        """An item's SID for people, e.g. "A12 B5 C77"."""
        return " ".join(f"{LEVEL_LETTERS[level]}{code}" for level, code in enumerate(self.codes[item]))

    def require(self, fingerprint: str, what: str = "the checkpoint") -> None:
        """Refuses to go on with something that was made with another table.

        Raises:
          SidTableMismatch: `fingerprint` is not this table's.
        """
        if fingerprint != self.fingerprint:
            raise SidTableMismatch(
                f"{what} was made with SidTable {fingerprint}, this one is {self.fingerprint} "
                f"({self.num_items} items, codebooks {self.codebook_sizes}, policy {self.collision_policy!r}): "
                "the same numbers mean other items. Use the table it was made with, or train again"
            )

    def write_files(self, directory: epath.Path) -> None:
        """Writes the table's files, without a manifest, into an artefact that is being made."""
        columns: dict[str, Any] = {"item_id": self.item_ids.tolist()}
        columns |= {f"code_{level}": self.codes[:, level] for level in range(self.num_levels)}
        columns["item_rank"] = self.item_rank
        with (directory / _TABLE_FILE).open("wb") as file:
            pl.DataFrame(columns).write_parquet(file)
        metadata = {
            "codebook_sizes": list(self.codebook_sizes),
            "collision_policy": self.collision_policy,
            "corpus_fingerprint": self.corpus_fingerprint,
        }
        artifact.write_json(directory / _METADATA_FILE, metadata)

    def save(
        self, directory: epath.PathLike, *, config: Any = None, inputs: Mapping[str, str] | None = None
    ) -> artifact.Manifest:
        """Writes the table as an artefact of its own."""
        return artifact.write_artifact(
            directory,
            kind=KIND,
            fingerprint=self.fingerprint,
            config=config,
            inputs=inputs or {"corpus": self.corpus_fingerprint},
            write=self.write_files,
        )

    @classmethod
    def load(cls, directory: epath.PathLike) -> SidTable:
        """Reads a complete table.

        Raises:
          ArtifactError: nothing complete there, or files that are not those the manifest was written for.
        """
        directory = epath.Path(directory)
        manifest = artifact.read_manifest(directory, KIND)
        metadata = json.loads((directory / _METADATA_FILE).read_text())
        with (directory / _TABLE_FILE).open("rb") as file:
            frame = pl.read_parquet(file)
        levels = [f"code_{level}" for level in range(len(metadata["codebook_sizes"]))]
        table = cls(
            codes=frame.select(levels).to_numpy(),
            codebook_sizes=tuple(metadata["codebook_sizes"]),
            item_ids=np.asarray(frame["item_id"].to_list(), dtype=np.str_),
            collision_policy=metadata["collision_policy"],
            corpus_fingerprint=metadata["corpus_fingerprint"],
            item_rank=frame["item_rank"].to_numpy(),
        )
        if table.fingerprint != manifest.fingerprint:
            raise artifact.ArtifactError(
                f"the table in {directory} has fingerprint {table.fingerprint}, but its manifest says "
                f"{manifest.fingerprint}: the files were changed; delete {directory} and run the stage again"
            )
        return table


def rank_within_sid(codes: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """Place (int32 [N], from 0) of each item among those with its codes [N, L]: popularity descending, then index."""
    order = np.lexsort((np.arange(len(codes)), -np.asarray(popularity, np.float64), *codes.T[::-1]))
    starts = _group_starts(codes[order])
    group_length = np.diff(np.append(starts, len(codes)))
    rank = np.empty(len(codes), np.int32)
    rank[order] = np.arange(len(codes)) - np.repeat(starts, group_length)
    return rank


def number_prefixes(codes: np.ndarray, codebook_sizes: Sequence[int]) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Numbers the prefixes that exist at each level, in lexicographic order.

    Args:
      codes: int [N, L].
      codebook_sizes: W_l.

    Returns:
      For each level the sorted int64 keys `parent prefix * W_l + code`, and int64 [N, L]: the number, at each level, of
      the prefix that the row has. Keys are of a level, not of a whole SID: 2048^8 overflows 64 bits.
    """
    prefix = np.zeros(len(codes), np.int64)
    all_keys, numbers = [], np.empty(codes.shape, np.int64)
    for level, size in enumerate(codebook_sizes):
        keys, prefix = np.unique(prefix * size + codes[:, level], return_inverse=True)
        all_keys.append(keys)
        numbers[:, level] = prefix
    return tuple(all_keys), numbers


def _group_starts(sorted_codes: np.ndarray) -> np.ndarray:
    """Rows (int64) at which a new SID begins in sorted codes [N, L]."""
    changes = np.any(sorted_codes[1:] != sorted_codes[:-1], axis=1)
    return np.flatnonzero(np.concatenate([[True], changes]))


def _build_index(table: SidTable) -> SidIndex:
    order = np.lexsort((table.item_rank, *table.codes.T[::-1]))
    sorted_codes = table.codes[order]
    starts = _group_starts(sorted_codes)
    sids = sorted_codes[starts]
    prefix_keys, _ = number_prefixes(sids, table.codebook_sizes)
    return SidIndex(
        sids=sids,
        offsets=np.append(starts, len(order)).astype(np.int64),
        items=order.astype(np.int32),
        prefix_keys=prefix_keys,
        codebook_sizes=table.codebook_sizes,
    )


def _check(table: SidTable) -> None:
    codes, sizes = table.codes, table.codebook_sizes
    if codes.ndim != 2 or codes.shape[0] == 0 or codes.shape[1] != len(sizes):
        raise SidTableError(f"expected codes [items, {len(sizes)}] for codebooks {sizes}, got shape {codes.shape}")
    if len(sizes) > len(LEVEL_LETTERS):
        raise SidTableError(f"a SID has at most {len(LEVEL_LETTERS)} levels, got {len(sizes)}")
    wrong = (codes < 0) | (codes >= np.asarray(sizes))
    if wrong.any():
        item, level = np.argwhere(wrong)[0]
        raise SidTableError(
            f"item row {item} has code {codes[item, level]} at level {level}, expected 0 to {sizes[level] - 1}"
        )
    if table.item_ids.shape != (len(codes),) or table.item_rank.shape != (len(codes),):
        raise SidTableError(
            f"expected {len(codes)} item ids and ranks, got {len(table.item_ids)} and {len(table.item_rank)}"
        )
    unique, counts = np.unique(table.item_ids, return_counts=True)
    if len(unique) != len(codes):
        raise SidTableError(f"item id {str(unique[counts > 1][0])!r} occurs more than once: item ids must be unique")
