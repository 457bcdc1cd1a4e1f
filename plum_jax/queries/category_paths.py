"""Queries for events that have none: the words of an item's category path, as the literature on product search does."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.corpus.features.text import item_texts
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import FOLDS, TRAIN
from plum_jax.queries.words import words_of


@dataclasses.dataclass(frozen=True, eq=False)
class ItemQueries:
    """The query that finds each item.

    Attributes:
      texts: Q queries, sorted: words with spaces between.
      of_item: int32 [N], number of the item's query; -1: it has none.
      fold: int8 [Q]: which queries train, and which are for validation and test alone.
    """

    texts: tuple[str, ...]
    of_item: np.ndarray
    fold: np.ndarray


@dataclasses.dataclass(frozen=True)
class CategoryQueries:
    """Product search over data without a query log (Van Gysel et al., arXiv 1608.07253; Ai et al., SIGIR 2017, §4.1).

    The query of an item is its category path, stop words and repeated words removed; a user who takes an item has
    searched for it with its query. Of all queries a share is held out: no purchase of their items is a search example
    in training, so that test queries are new. Deviations: the papers' items stand under several paths and have as many
    queries (Ai et al. put one of them back where all are held out), those of this project's copies under one; a further
    share of queries is for validation, where Ai et al. have none.

    Attributes:
      field: text of items that holds the path.
      held_out: share of the queries for test; Ai et al.'s.
      validation: share of the queries for validation.
      seed: of the draw, the same for all seeds of a study, so that their figures are of one set of queries.
    """

    field: str
    held_out: float = 0.3
    validation: float = 0.1
    seed: int = 0

    def of(self, corpus: Corpus) -> ItemQueries:
        """Queries of all items.

        Raises:
          ValueError: no such text of items, or fewer queries than folds.
        """
        found = [" ".join(words_of(text)) for text in item_texts(corpus, (self.field,), "queries")]
        texts = tuple(sorted({text for text in found if text}))
        number = {text: place for place, text in enumerate(texts)}
        for_test, for_validation = (round(share * len(texts)) for share in (self.held_out, self.validation))
        if not (for_test and for_test + for_validation < len(texts)):
            raise ValueError(
                f"field {self.field!r} of corpus {corpus.name!r} gives {len(texts)} queries, of which {self.held_out} "
                f"are to be held out and {self.validation} for validation: expected some in test and in training"
            )
        drawn = np.random.default_rng(self.seed).permutation(len(texts))
        fold = np.full(len(texts), TRAIN, np.int8)
        fold[drawn[:for_test]] = FOLDS["test"]
        fold[drawn[for_test : for_test + for_validation]] = FOLDS["validation"]
        return ItemQueries(texts, np.array([number.get(text, -1) for text in found], np.int32), fold)
