"""Tokens for numbers and categories: buckets with stated edges, names."""

from __future__ import annotations

import bisect
import dataclasses
import functools
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


FieldTokens = Buckets | Categories


def field_from_json(field: dict[str, Any]) -> FieldTokens:
    if field["type"] == Buckets.__name__:
        return Buckets(field["name"], tuple(field["edges"]))
    return Categories(field["name"], tuple(field["values"]))


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


@functools.lru_cache(maxsize=256)
def _places(values: tuple[str, ...]) -> dict[str, int]:
    return {value: place for place, value in enumerate(values)}
