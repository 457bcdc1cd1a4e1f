"""The catalogue: what a query's words say by the texts of items, of those too that nobody has taken."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse

from plum_jax.corpus.features.text import item_texts
from plum_jax.corpus.taxonomy import NONE
from plum_jax.query_understanding.log import QueryLog
from plum_jax.query_understanding.similar import ByCoverage, SimilarityIndex, SimilarQueries


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

    def index(self, log: QueryLog) -> SimilarityIndex:
        """Of the items that stand under a category."""
        return self.similar.index(self.texts(log))

    def counts(self, log: QueryLog, events: np.ndarray) -> scipy.sparse.csr_array:
        """float32 [known, C], each item's popularity in these events int [E] at its class."""
        weight = (1.0 + log.taken(events)[_classed(log)]) ** self.popularity
        return scipy.sparse.csr_array(self.classes(log).multiply(weight.astype(np.float32)[:, None]))

    def texts(self, log: QueryLog) -> list[str]:
        """Of these items."""
        texts = item_texts(log.split.corpus, self.fields, "the catalogue")
        return [texts[item] for item in _classed(log)]

    def classes(self, log: QueryLog) -> scipy.sparse.csr_array:
        """float32 [known, C], 1 for the class of each of these items."""
        of_item = log.class_of_item[_classed(log)]
        place, shape = (np.arange(len(of_item)), of_item), (len(of_item), log.num_classes)
        return scipy.sparse.coo_array((np.ones(len(of_item), np.float32), place), shape=shape).tocsr()


def _classed(log: QueryLog) -> np.ndarray:
    return np.flatnonzero(log.class_of_item != NONE)
