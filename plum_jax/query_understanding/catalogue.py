"""The catalogue: what a query's words say by the texts of items, of those too that nobody has taken."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse

from plum_jax.corpus.features.text import item_texts
from plum_jax.corpus.taxonomy import NONE
from plum_jax.query_understanding.log import QueryLog
from plum_jax.query_understanding.similar import ByCoverage, Conversions, SimilarQueries


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """The categories of the items whose texts have a query's words (an `Evidence`).

    Attributes:
      fields: text of items.
      similar: which items count, and how much.
      most: categories of a prompt at most.
      popularity: exponent of 1 + how often an item was taken, which it counts by besides; 0: all items alike.
    """

    fields: tuple[str, ...]
    similar: SimilarQueries = ByCoverage()
    most: int = 5
    popularity: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))

    def known(self, log: QueryLog, events: np.ndarray) -> Conversions:
        """What texts of items stand for; these events int [E] say how often each was taken."""
        corpus = log.split.corpus
        taken = np.bincount(corpus.events["item"].to_numpy()[events], minlength=corpus.num_items)
        weight = (1.0 + taken[_classed(log)]) ** self.popularity
        return Conversions(self.similar.index(self.texts(log)), _classes(log, weight))

    def texts(self, log: QueryLog) -> list[str]:
        """Of the items that stand under a category."""
        texts = item_texts(log.split.corpus, self.fields, "the catalogue")
        return [texts[item] for item in _classed(log)]

    def classes(self, log: QueryLog) -> scipy.sparse.csr_array:
        """float32 [items, C], 1 for the class of each item of `texts`."""
        return _classes(log, np.ones(len(_classed(log))))


def _classed(log: QueryLog) -> np.ndarray:
    return np.flatnonzero(log.class_of_item != NONE)


def _classes(log: QueryLog, weight: np.ndarray) -> scipy.sparse.csr_array:
    items = _classed(log)
    place, shape = (np.arange(len(items)), log.class_of_item[items]), (len(items), log.num_classes)
    return scipy.sparse.coo_array((weight.astype(np.float32), place), shape=shape).tocsr()
