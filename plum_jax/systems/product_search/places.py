"""Where users and items are: a country or a segment that both sides know by one name."""

from __future__ import annotations

import dataclasses

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

    def numbers(self, corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
        """int32 [U] of users and [N] of items."""
        number = {name: place for place, name in enumerate(self.names(corpus), start=1)}
        columns = corpus.users[self.of_users], corpus.items[self.of_items]
        users, items = (
            column.cast(pl.String).replace_strict(number, default=0, return_dtype=pl.Int32).fill_null(0).to_numpy()
            for column in columns
        )
        return users, items
