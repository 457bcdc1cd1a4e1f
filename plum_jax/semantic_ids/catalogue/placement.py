"""Placement: which Semantic ID a new item gets in a table whose items keep theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from plum_jax.semantic_ids.catalogue.new_items import CatalogueError
from plum_jax.semantic_ids.codec import Codec
from plum_jax.semantic_ids.table import SidTable, number_prefixes, rank_within_sid

# Of rows (ascending), in order, piece by piece: rows and their distances float32 [rows, W_L] to the last level's codes.
Distances = Callable[[np.ndarray], Iterable[tuple[np.ndarray, np.ndarray]]]


@dataclasses.dataclass(frozen=True, eq=False)
class Placement:
    """Where the new items went: codes int32 [M, levels of the table], ranks int32 [M], counts as JSON values."""

    codes: np.ndarray
    item_rank: np.ndarray
    report: Mapping[str, Any]


def place(base: SidTable, codec: Codec, codes: np.ndarray, distances: Distances) -> Placement:
    """Places new items into a table, one after the other, by the table's collision policy.

    "keep": an item keeps the codes that the codec gives it, and ranks after those that have them already.
    "extra_digit": it gets the next digit that is free under its codes; where none is, the last, which it then shares.
    "reassign": it takes its SID if that is free, else the nearest code of the last level that is free under its prefix;
    where none is, it shares its own SID.

    Old items stay as they are. Each item sees the ones before it only, so that it does not matter whether items come at
    once or in several extensions. An item that has to share although the policy gives each its own is `crowded`.

    Args:
      base: the table.
      codec: of the table.
      codes: int32 [M, L], what the codec assigns to the new items, in the order of their arrival.
      distances: for "reassign": see `Codec.last_level_distances`.

    Raises:
      CatalogueError: table and codec that do not belong together.
    """
    digits = int(base.collision_policy == "extra_digit")
    sizes = codec.codebook_sizes
    if base.codebook_sizes[: len(sizes)] != sizes or base.num_levels != len(sizes) + digits:
        raise CatalogueError(
            f"the table has levels {base.codebook_sizes} and policy {base.collision_policy!r}, its codec {sizes}: the "
            "codec's files are not those the table was made with; make the table again"
        )
    assigned, sids = _numbered(np.concatenate([base.codes[:, : len(sizes)], codes]), sizes)
    before = _arrivals(assigned)[base.num_items :]
    report = {
        "policy": base.collision_policy,
        "collided_items": int((before > 0).sum()),
        "unshared_items": int((np.bincount(assigned, minlength=sids)[assigned[base.num_items :]] == 1).sum()),
    }
    if base.collision_policy == "extra_digit":
        codes, more = _extra_digit(base, codes, assigned)
    elif base.collision_policy == "reassign":
        codes, more = _reassign(base, codes, distances)
    else:
        more = {}
    return Placement(codes, _ranks(base, codes), report | more)


def _numbered(codes: np.ndarray, sizes: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """A number for the codes of each row, equal where the codes are, and how many numbers there are."""
    if not sizes:
        return np.zeros(len(codes), np.int64), 1
    numbers = number_prefixes(codes, sizes)[1][:, -1]
    return numbers, int(numbers.max()) + 1


def _arrivals(group: np.ndarray) -> np.ndarray:
    """How many rows of the same group (int [N]) come before each row."""
    return rank_within_sid(group[:, None], np.zeros(len(group)))


def _ranks(base: SidTable, codes: np.ndarray) -> np.ndarray:
    """After those that have the SID already: the old ones, then the new ones in order."""
    sids, _ = _numbered(np.concatenate([base.codes, codes]), base.codebook_sizes)
    return _arrivals(sids)[base.num_items :]


def _extra_digit(base: SidTable, codes: np.ndarray, assigned: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    size = base.codebook_sizes[-1]
    old, new = assigned[: base.num_items], assigned[base.num_items :]
    following = np.zeros(int(assigned.max()) + 1, np.int64)  # the next free digit of each SID
    np.maximum.at(following, old, base.codes[:, -1] + 1)
    digit = following[new] + _arrivals(new)
    crowded = int((digit >= size).sum())
    digit = np.minimum(digit, size - 1).astype(np.int32)
    return np.concatenate([codes, digit[:, None]], axis=1), {"crowded_items": crowded}


def _reassign(base: SidTable, codes: np.ndarray, distances: Distances) -> tuple[np.ndarray, dict[str, int]]:
    """One after the other, under the prefixes where a new item meets another; elsewhere all have their own SID."""
    codes, size, old = codes.copy(), base.codebook_sizes[-1], base.num_items
    together = np.concatenate([base.codes, codes])
    prefix, _ = _numbered(together[:, :-1], base.codebook_sizes[:-1])
    _, sid, shared_by = np.unique(prefix * size + together[:, -1], return_inverse=True, return_counts=True)
    contested = np.unique(prefix[old:][shared_by[sid[old:]] > 1])
    inside = np.isin(prefix, contested)
    place_of = np.searchsorted(contested, prefix)
    taken = np.zeros((len(contested), size), bool)
    taken[place_of[:old][inside[:old]], base.codes[inside[:old], -1]] = True
    moved = crowded = 0
    for rows, distances_of_rows in distances(np.flatnonzero(inside[old:])):
        for row, distance in zip(rows, distances_of_rows, strict=True):
            taken_here, code = taken[place_of[old + row]], codes[row, -1]
            if taken_here[code]:
                if taken_here.all():
                    crowded += 1
                    continue
                code = np.argmin(np.where(taken_here, np.inf, distance))
                codes[row, -1] = code
                moved += 1
            taken_here[code] = True
    return codes, {"moved_items": moved, "crowded_items": crowded}
