"""What a model of product search reads of a corpus."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from plum_jax import artifact
from plum_jax.corpus.splits import TRAIN, Split
from plum_jax.encoders.language_model import LanguageModelStart
from plum_jax.queries.category_paths import ItemQueries
from plum_jax.queries.words import KnownWords
from plum_jax.systems.product_search.inputs import Queries
from plum_jax.systems.product_search.items import ItemSide
from plum_jax.systems.product_search.network import SearchConfig, SearchNetwork


@dataclasses.dataclass(frozen=True, eq=False)
class SearchData:
    """What a model reads.

    Attributes:
      split: events and folds.
      item_queries: of the items.
      queries: their texts as the towers read them.
      words: that are known.
      model: pieces, and what the transformer begins with.
      items: what is known of items.
      user_places: int32 [U].
    """

    split: Split
    item_queries: ItemQueries
    queries: Queries
    words: KnownWords
    model: LanguageModelStart
    items: ItemSide
    user_places: np.ndarray

    @functools.cached_property
    def fingerprint(self) -> str:
        parts = self.queries.fingerprint, self.items.fingerprint, self.model.fingerprint
        return artifact.fingerprint(*parts, self.item_queries.of_item, self.item_queries.fold, self.user_places)

    @property
    def candidates(self) -> np.ndarray:
        """int32, items that a training query finds. Whether a training query finds none of the others is not known of
        them: drawn as negatives, items of held-out queries would be learnt as what nobody looks for.
        """
        of_item = self.item_queries.of_item
        return np.flatnonzero((of_item >= 0) & (self.item_queries.fold[of_item] == TRAIN)).astype(np.int32)

    def network(self, config: SearchConfig) -> SearchNetwork:
        """For these data."""
        return SearchNetwork(config, self.model.config, self.model.vocab_size, self.words.size, self.items)
