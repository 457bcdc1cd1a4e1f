"""Tokens for numbers, categories and names of many: buckets with stated edges, values, hashes."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import hashlib
import itertools
import math
from typing import Any

import numpy as np

from plum_jax.text.special_ids import VocabularyError


@dataclasses.dataclass(frozen=True)
class Buckets:
    """One token for each range of a number: bucket b holds edges[b - 1] <= value < edges[b]; missing is "none".

    Attributes:
      name: the field, e.g. "watch_ratio"; its tokens are <watch_ratio:0> ... and <watch_ratio:none>.
      edges: rising limits between buckets; k edges make k + 1 buckets.
    """

    name: str
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        edges = list(self.edges)
        if not edges or any(not b > a for a, b in itertools.pairwise(edges)) or not all(map(math.isfinite, edges)):
            raise VocabularyError(f"field {self.name!r}: expected finite edges that rise, got {tuple(edges)}")

    def labels(self) -> tuple[str, ...]:
        return (*map(str, range(len(self.edges) + 1)), "none")

    def place(self, value: Any) -> int:
        if is_missing(value):
            return len(self.edges) + 1
        return bisect.bisect_right(self.edges, float(value))


@dataclasses.dataclass(frozen=True)
class Categories:
    """One token for each value of a category; other values are "other", missing ones "none".

    Attributes:
      name: the field, e.g. "gender"; its tokens are <gender:F>, <gender:M>, <gender:other>, <gender:none>.
      values: the values that have a token.
    """

    name: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        reserved = {"other", "none"} & set(self.values)
        if len(set(self.values)) != len(self.values) or reserved:
            raise VocabularyError(
                f"field {self.name!r}: expected different values, none of them 'other' or 'none', got {self.values}"
            )

    def labels(self) -> tuple[str, ...]:
        return (*self.values, "other", "none")

    def place(self, value: Any) -> int:
        if is_missing(value):
            return len(self.values) + 1
        return _places(self.values).get(str(value), len(self.values))


@dataclasses.dataclass(frozen=True)
class Hashed:
    """So many tokens for a name that has too many values for one each, e.g. TIGER's 2,000 for users (2305.05065, 3.2).

    Which token a value has follows from it alone (SHA-256): values that share one cannot be told apart.

    Attributes:
      name: the field, e.g. "user_id"; its tokens are <user_id:0> ... and <user_id:none>.
      count: of tokens.
    """

    name: str
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise VocabularyError(f"field {self.name!r}: expected at least one token to hash to, got {self.count}")

    def labels(self) -> tuple[str, ...]:
        return (*map(str, range(self.count)), "none")

    def place(self, value: Any) -> int:
        if is_missing(value):
            return self.count
        digest = hashlib.sha256(str(value).encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.count


FieldTokens = Buckets | Categories | Hashed


def field_from_json(field: dict[str, Any]) -> FieldTokens:
    if field["type"] == Buckets.__name__:
        return Buckets(field["name"], tuple(field["edges"]))
    if field["type"] == Hashed.__name__:
        return Hashed(field["name"], field["count"])
    return Categories(field["name"], tuple(field["values"]))


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


@functools.lru_cache(maxsize=256)
def _places(values: tuple[str, ...]) -> dict[str, int]:
    return {value: place for place, value in enumerate(values)}
