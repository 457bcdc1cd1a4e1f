"""What items have in words: the values of their columns, which items share them, and what one has of another."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence

import numpy as np
import polars as pl

from plum_jax.corpus.schema import Corpus
from plum_jax.ragged import Ragged


class ItemAttributeError(ValueError):
    """An attribute that the items do not have."""


def attributes(corpus: Corpus, field: str) -> tuple[list[str], np.ndarray]:
    """The values of a column of items in order, and bool [N, values]: which items have which.

    Args:
      corpus: whose items.
      field: a column, text or a list of text; or one of numbers and a span, as in "year:10": 1947 is "1940s".

    Raises:
      ItemAttributeError: no such column, one without a value, or a span of what is no number.
    """
    name, _, span = field.partition(":")
    if name not in corpus.items.columns:
        raise ItemAttributeError(
            f"the items of corpus {corpus.name!r} have no field {name!r}; valid are {', '.join(corpus.items.columns)}"
        )
    column = corpus.items[name] if not span else _spans(corpus.items[name], field, span)
    if not isinstance(column.dtype, pl.List):
        column = column.cast(pl.String).map_elements(lambda value: [value], pl.List(pl.String), skip_nulls=True)
    item = np.repeat(np.arange(corpus.num_items), column.list.len().fill_null(0).to_numpy())
    values = column.filter((column.list.len() > 0).fill_null(False)).list.explode().cast(pl.String).to_numpy()
    real = np.array([value is not None for value in values], bool)
    if not real.any():
        raise ItemAttributeError(f"no item of corpus {corpus.name!r} has a value of {field!r}")
    names, of = np.unique(values[real].astype(str), return_inverse=True)
    has = np.zeros((corpus.num_items, len(names)), bool)
    has[item[real], of] = True
    return names.tolist(), has


def _spans(column: pl.Series, field: str, span: str) -> pl.Series:
    """Numbers by the span that they are in, "1940s"; null where there is none."""
    if isinstance(column.dtype, pl.List) or not span.isdigit() or not int(span):
        raise ItemAttributeError(
            f"expected a column of single numbers and a whole span above 0, as in 'year:10', got {field!r}"
        )
    numbers = column.cast(pl.Int64, strict=False)
    if numbers.null_count() == len(numbers):
        raise ItemAttributeError(f"expected numbers for the spans of {field!r}, got values such as {column[0]!r}")
    first = (numbers // int(span)) * int(span)
    return first.cast(pl.String) + "s"


def require_value(names: list[str], field: str, value: str) -> int:
    """The place of a value.

    Raises:
      ItemAttributeError: no item has it; near ones are named.
    """
    if value not in names:
        near = difflib.get_close_matches(value, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names[:20])}"
        raise ItemAttributeError(f"no item has {value!r} as {field}: {hint}")
    return names.index(value)


@dataclasses.dataclass(frozen=True, eq=False)
class SharedAttributes:
    """What two items have in common.

    Attributes:
      names: str [V], values of all fields, in order.
      has: bool [N, V], which item has which.
      worth: float64 [V], nats: -log of the share of the items that have it, so that a rare value says more.
    """

    names: np.ndarray
    has: np.ndarray
    worth: np.ndarray

    @classmethod
    def of(cls, corpus: Corpus, fields: Sequence[str]) -> SharedAttributes:
        """By columns of items, text or lists of text.

        Raises:
          ItemAttributeError: no such column, or one without a value.
        """
        found = [attributes(corpus, field) for field in fields]
        has = np.concatenate([of for _, of in found], axis=1)
        return cls(np.array([name for names, _ in found for name in names]), has, -np.log(has.mean(axis=0)))

    def strength(self, items: np.ndarray, others: np.ndarray) -> np.ndarray:
        """float64 [R], nats: what item items[r] (int [R]) and others[r] have in common is worth; 0: nothing."""
        return (self.has[items] & self.has[others]) @ self.worth

    def in_common(self, item: int, other: int) -> list[str]:
        """The values that both have."""
        return self.names[self.has[item] & self.has[other]].tolist()

    def nearest(self, targets: np.ndarray, history: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """int64 [R]: place in each history of the item that shares most with the target, the newest of equals.

        Args:
          targets: int [R], items.
          history: int [sum of lengths], items, oldest first.
          lengths: int [R], of the histories; -1 is the place where nothing is shared, as in an empty one.
        """
        strength = self.strength(np.repeat(targets, lengths), history)
        row = np.repeat(np.arange(len(targets)), lengths)
        place = Ragged(history, lengths).places
        order = np.lexsort((place, strength, row))
        found = np.full(len(targets), -1, np.int64)
        kept = order[strength[order] > 0]
        found[row[kept]] = place[kept]  # the last one written of a row is its strongest
        return found
