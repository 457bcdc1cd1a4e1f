"""Where users and items are: a country or a segment that both sides know by one name."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import polars as pl

from plum_jax.corpus.schema import Corpus


@dataclasses.dataclass(frozen=True)
class Location:
    """A column of users and one of items with the same names, such as "country"; both sides share its embedding.

    Attributes:
      of_users: feature of users.
      of_items: feature of items.
    """

    of_users: str = "country"
    of_items: str = "country"

    def names(self, corpus: Corpus) -> tuple[str, ...]:
        """Those of items, sorted; the first has number 1. A user's place that no item has is 0, unknown.

        Raises:
          ValueError: no such column.
        """
        for name, there in ((self.of_users, corpus.user_features), (self.of_items, corpus.item_features)):
            if name not in there:
                raise ValueError(f"corpus {corpus.name!r} has no {name!r}: expected one of {list(there)}")
        return tuple(corpus.items[self.of_items].cast(pl.String).drop_nulls().unique().sort())

    def numbers(self, corpus: Corpus) -> Places:
        """Of all users and items."""
        number = {name: place for place, name in enumerate(self.names(corpus), start=1)}
        columns = corpus.users[self.of_users], corpus.items[self.of_items]
        users, items = (
            column.cast(pl.String).replace_strict(number, default=0, return_dtype=pl.Int32).fill_null(0).to_numpy()
            for column in columns
        )
        return Places(users, items, 1 + len(number))


class Places(NamedTuple):
    """Numbers of places; 0 is none, or one that no item has.

    Attributes:
      users: int32 [U].
      items: int32 [N].
      size: how many numbers there are.
    """

    users: np.ndarray
    items: np.ndarray
    size: int

    @classmethod
    def nowhere(cls, corpus: Corpus) -> Places:
        """Nothing is known of them."""
        return cls(np.zeros(corpus.num_users, np.int32), np.zeros(corpus.num_items, np.int32), 1)
