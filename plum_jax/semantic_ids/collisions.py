"""Collisions: what happens to items that the quantiser gave the same SID."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from plum_jax.semantic_ids.quantization import Quantization
from plum_jax.semantic_ids.table import LEVEL_LETTERS, number_prefixes, rank_within_sid

CollisionPolicy = Literal["keep", "extra_digit", "reassign"]


class CollisionError(ValueError):
    """A policy that does not exist, or that cannot make these codes unique."""


@dataclasses.dataclass(frozen=True, eq=False)
class Resolution:
    """Codes after a policy: int32 [N, L or L + 1], sizes, and what the policy did (JSON values)."""

    codes: np.ndarray
    codebook_sizes: tuple[int, ...]
    report: Mapping[str, Any]


def resolve(quantization: Quantization, policy: CollisionPolicy, popularity: np.ndarray) -> Resolution:
    """Applies a collision policy.

    "keep": nothing; a SID stands for several items, which are recommended in the order of `SidTable.item_rank`.
    "extra_digit": one more level counts the items of a SID, most popular first; 0 for items alone (TIGER, papers §4.1).
    "reassign": the most popular item of a SID keeps it; each other one, most popular first, goes to the nearest code of
    the last level that is free under its prefix, so that it keeps all levels but the last.

    Args:
      quantization: codes, codebooks and latents of N items.
      policy: one of the three.
      popularity: [N], training events of each item; ties are broken by item index.

    Raises:
      CollisionError: no such policy, or "reassign" where a prefix has more items than the last level has codes.
    """
    policies: dict[str, Callable[[Quantization, np.ndarray], Resolution]] = {
        "keep": _keep,
        "extra_digit": _extra_digit,
        "reassign": _reassign,
    }
    if policy not in policies:
        raise CollisionError(f"expected a collision policy of {', '.join(policies)}, got {policy!r}")
    resolution = policies[policy](quantization, popularity)
    _, prefixes = number_prefixes(quantization.codes, quantization.codebook_sizes)
    sharing = np.bincount(prefixes[:, -1])
    before = {"policy": policy, "sharing_items_before": int(sharing[sharing > 1].sum())}
    return dataclasses.replace(resolution, report={**before, **resolution.report})


def _keep(quantization: Quantization, popularity: np.ndarray) -> Resolution:
    del popularity
    return Resolution(quantization.codes, quantization.codebook_sizes, {})


def _extra_digit(quantization: Quantization, popularity: np.ndarray) -> Resolution:
    digit = rank_within_sid(quantization.codes, popularity)
    size = int(digit.max()) + 1
    codes = np.concatenate([quantization.codes, digit[:, None]], axis=1)
    return Resolution(codes, (*quantization.codebook_sizes, size), {"digit_size": size})


def _reassign(quantization: Quantization, popularity: np.ndarray) -> Resolution:
    codes, sizes = quantization.codes.copy(), quantization.codebook_sizes
    # A constant first column, so that codes of a single level have a prefix too.
    parents = np.concatenate([np.zeros((len(codes), 1), codes.dtype), codes[:, :-1]], axis=1)
    prefix = number_prefixes(parents, (1, *sizes[:-1]))[1][:, -1]
    _check_room(codes, prefix, sizes)
    displaced = np.flatnonzero(rank_within_sid(codes, popularity) > 0)
    displaced = displaced[np.lexsort((displaced, -np.asarray(popularity)[displaced], prefix[displaced]))]
    by_prefix = np.argsort(prefix, kind="stable")
    starts = np.searchsorted(prefix[by_prefix], np.arange(prefix.max() + 2))
    crowded, first = np.unique(prefix[displaced], return_index=True)
    for number, movers in tqdm(
        zip(crowded, np.split(displaced, first[1:]), strict=False),
        total=len(crowded),
        desc="reassigning",
        unit=" prefixs",
        delay=1,
    ):
        members = by_prefix[starts[number] : starts[number + 1]]
        distances = quantization.last_level_distances(movers)
        distances[:, np.unique(codes[members, -1])] = np.inf
        for item, distance in zip(movers, distances, strict=True):
            code = np.argmin(distance)
            codes[item, -1] = code
            distances[:, code] = np.inf
    return Resolution(codes, sizes, {"moved_items": len(displaced)})


def _check_room(codes: np.ndarray, prefix: np.ndarray, sizes: tuple[int, ...]) -> None:
    members = np.bincount(prefix)
    fullest = int(np.argmax(members))
    if members[fullest] > sizes[-1]:
        item = np.flatnonzero(prefix == fullest)[0]
        name = " ".join(f"{LEVEL_LETTERS[level]}{code}" for level, code in enumerate(codes[item, :-1]))
        raise CollisionError(
            f"{members[fullest]} items share prefix {name or '(none)'!r}, but the last level has {sizes[-1]} codes, "
            "too few for each to have its own SID: give the last level more codes, add a level, or use the policy "
            "'extra_digit' or 'keep'"
        )
