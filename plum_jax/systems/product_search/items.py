"""What the towers read of every item: its title in pieces and in words, neighbours, categories, a place."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import polars as pl

from plum_jax import artifact
from plum_jax.corpus.co_watch import co_watch_pairs
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import Split
from plum_jax.encoders.token_rows import TokenRows
from plum_jax.queries.category_paths import ItemQueries
from plum_jax.queries.words import words_of

CATEGORIES_READ = 2  # of each item, the first ones


@dataclasses.dataclass(frozen=True, eq=False)
class ItemSide:
    """Arrays by item. Numbers of neighbours, categories and places begin with 1, and 0 is none.

    Attributes:
      tokens: of the title, in pieces.
      words: int32 [N, W], known words of the title, 0 behind the last.
      neighbours: int32 [N, K], 1 + item.
      categories: int32 [N, C].
      place: int32 [N].
      num_categories, num_places: with 0.
    """

    tokens: TokenRows
    words: np.ndarray
    neighbours: np.ndarray
    categories: np.ndarray
    place: np.ndarray
    num_categories: int = 1
    num_places: int = 1

    def __len__(self) -> int:
        return len(self.words)

    @functools.cached_property
    def fingerprint(self) -> str:
        numbers = self.words, self.neighbours, self.categories, self.place
        return artifact.fingerprint(*self.tokens, *numbers, self.num_categories, self.num_places)


def graph_neighbours(split: Split, window: int, count: int) -> np.ndarray:
    """int32 [N, count], 1 + the items that most often stand at most `window` positions from each in training histories.

    A pair counts if two users at least make it: those of one would tell, in training, which items the user of an
    example has taken, and nothing afterwards. Of equal counts the lower item is first; 0 fills.

    Raises:
      LeakError: an evaluated event among the events counted.
    """
    pairs = co_watch_pairs(split, window).filter(pl.col("count") > 1)
    a, b, times = (pairs[name].to_numpy() for name in ("item_a", "item_b", "count"))
    item, other, times = np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([times, times])
    order = np.lexsort((other, -times, item))
    item, other = item[order], other[order]
    place = np.arange(len(item)) - np.searchsorted(item, item)
    found = np.zeros((split.corpus.num_items, count), np.int32)
    kept = place < count
    found[item[kept], place[kept]] = 1 + other[kept]
    return found


def categories_of(corpus: Corpus, field: str | None, queries: ItemQueries) -> tuple[np.ndarray, int]:
    """int32 [N, CATEGORIES_READ] of a feature of items, and how many there are with 0, none.

    What queries are made of must not be read here: of an item's values those are left out that say nothing but what its
    query says (of "OPI", "Makeup" and "Nails" the brand is left where the query is "beauty makeup nails nail polish").

    Raises:
      ValueError: no such feature.
    """
    found = np.zeros((corpus.num_items, CATEGORIES_READ), np.int32)
    if field is None:
        return found, 1
    if field not in corpus.item_features:
        raise ValueError(
            f"expected a feature of items among {list(corpus.item_features)} of corpus {corpus.name!r} as categories, "
            f"got {field!r}: set SEARCH_CATEGORY"
        )
    said = [set(text.split()) for text in queries.texts]
    column = corpus.items[field]
    values = (
        column.cast(pl.List(pl.String))
        if isinstance(column.dtype, pl.List)
        else column.cast(pl.String).reshape((-1, 1))
    )
    number: dict[str, int] = {}
    for item, (of_item, query) in enumerate(zip(values.to_list(), queries.of_item, strict=True)):
        words = said[query] if query >= 0 else set()
        kept = [value for value in of_item or [] if value and not set(words_of(value)) <= words]
        for place, value in enumerate(kept[:CATEGORIES_READ]):
            found[item, place] = number.setdefault(value, 1 + len(number))
    return found, 1 + len(number)
