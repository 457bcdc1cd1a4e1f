"""Queries for events that have none: the words of an item's category path, as the literature on product search does."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import polars as pl

from plum_jax.corpus.features.text import item_texts
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import FOLDS, TRAIN

# Function words, which say nothing of a product; category paths and titles have few others.
_FUNCTION_WORDS = """
a an and are as at be by for from in into is it its more no not of off on or other others out over per s t the this to
up with without you your
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())


def words_of(text: str) -> list[str]:
    """The words of a text in small letters, each once, in order, without stop words."""
    return [word for word in dict.fromkeys(re.findall(r"[^\W_]+", text.lower())) if word not in STOP_WORDS]


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


@dataclasses.dataclass(frozen=True, eq=False)
class KnownWords:
    """Words that have an embedding; 0 is padding, and a word that is not known is left out.

    Attributes:
      words: sorted; the first has number 1.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, queries: Sequence[str], texts: Sequence[str]) -> KnownWords:
        """Every word of the queries, and those of other texts that stand in two of them at least.

        Args:
          queries: that training reads.
          texts: of items.
        """
        counted = pl.Series([word for text in texts for word in words_of(text)], dtype=pl.String).value_counts()
        often = counted.filter(pl.col("count") > 1).to_series(0).to_list()
        return cls(tuple(sorted({*often, *(word for query in queries for word in words_of(query))})))

    @property
    def size(self) -> int:
        """Rows of an embedding, with that of padding."""
        return 1 + len(self.words)

    def numbers(self, texts: Sequence[str], length: int) -> np.ndarray:
        """int32 [n, length], the first known words of each text, 0 behind the last."""
        number = {word: place for place, word in enumerate(self.words, start=1)}
        found = np.zeros((len(texts), length), np.int32)
        for row, text in zip(found, texts, strict=True):
            known = [number[word] for word in words_of(text) if word in number][:length]
            row[: len(known)] = known
        return found

    def require(self, text: str) -> None:
        """Raises `ValueError` for a query that says nothing."""
        words = words_of(text)
        if not words:
            raise ValueError(f"expected a query with at least one word that is no stop word, got {text!r}")
        known = set(self.words)
        if not any(word in known for word in words):
            raise ValueError(
                f"no word of the query {text!r} is known ({', '.join(words)}): expected one of the {len(self.words):,} "
                "words of training queries and item texts"
            )


def inverse_frequency(words: np.ndarray, size: int) -> np.ndarray:
    """float32 [size], log(N / texts with the word) of each word of texts int32 [N, W] without repetitions; 0 for 0."""
    count = np.bincount(words.ravel(), minlength=size)
    found = np.log(len(words) / np.maximum(count, 1)).astype(np.float32)
    found[0] = 0.0
    return found
