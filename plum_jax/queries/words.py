"""Words of queries and titles: what counts as one, which have an embedding, and how rare each is."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np
import polars as pl

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

    @functools.cached_property
    def _number(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words, start=1)}

    def numbers(self, texts: Sequence[str], length: int) -> np.ndarray:
        """int32 [n, length], the first known words of each text, 0 behind the last."""
        number = self._number
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
        if not any(word in self._number for word in words):
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
