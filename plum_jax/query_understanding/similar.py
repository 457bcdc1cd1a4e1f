"""Which texts are alike, and what those that are known stand for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import faiss
import numpy as np
import scipy.sparse

from plum_jax.corpus.features.text import embed_texts
from plum_jax.queries.words import words_of

_AT_ONCE = 2048  # queries


class SimilarQueries(Protocol):
    """A frozen dataclass, bound in gin: `ByWords`, `ByCoverage`, `ByText`."""

    def index(self, known: Sequence[str]) -> SimilarityIndex:
        """Of queries that others are to be compared with."""


class SimilarityIndex(Protocol):
    """Of some queries."""

    def similarities(self, texts: Sequence[str]) -> scipy.sparse.csr_array:
        """float32 [n, known], 0 to 1; what is not alike is left out."""


@dataclasses.dataclass(frozen=True)
class ByWords:
    """The cosine of the texts' words, each weighed by log(N / texts with the word).

    Attributes:
      power: of the cosine: the higher, the less do texts count that share some words only. A text that is known is its
        own neighbour, with 1.
    """

    power: float = 8.0

    def index(self, known: Sequence[str]) -> WordIndex:
        words = WeighedWords(tuple(known))
        return WordIndex(words, _divided(words.weighed(known), _length).T.tocsr(), _length, self.power)


@dataclasses.dataclass(frozen=True)
class ByCoverage:
    """The share of a query's words that a known text has, each weighed as in `ByWords`. Which other words the text has
    is no matter: for long texts, of items, that short queries are to find.

    Attributes:
      power: of the share: the higher, the less do texts count that have some of the words only.
    """

    power: float = 8.0

    def index(self, known: Sequence[str]) -> WordIndex:
        words = WeighedWords(tuple(known))
        return WordIndex(words, words.matrix(known).T.tocsr(), _sum, self.power)


@dataclasses.dataclass(frozen=True, eq=False)
class WeighedWords:
    """The words of some texts.

    Attributes:
      known: the texts.
    """

    known: tuple[str, ...]

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return numbers_of_words(self.known)

    @functools.cached_property
    def _weights(self) -> np.ndarray:
        """float32 [W]; 1 is added so that a word of all texts counts for something."""
        stands = np.diff(self.matrix(self.known).tocsc().indptr)
        return (1.0 + np.log(len(self.known) / np.maximum(stands, 1))).astype(np.float32)

    def matrix(self, texts: Sequence[str]) -> scipy.sparse.csr_array:
        """float32 [n, W], 1 for each word of a text that is known."""
        return word_matrix(texts, self._numbers)

    def weighed(self, texts: Sequence[str]) -> scipy.sparse.csr_array:
        """The same, each word with its weight."""
        found = self.matrix(texts)
        found.data *= self._weights[found.indices]
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class WordIndex:
    """`ByWords` or `ByCoverage` of some texts.

    Attributes:
      words: of the texts.
      columns: float32 [W, known], what each text counts for a word.
      by: what a query's weighed words are divided by.
      power: of the products.
    """

    words: WeighedWords
    columns: scipy.sparse.csr_array
    by: Callable[[scipy.sparse.csr_array], np.ndarray]
    power: float

    def similarities(self, texts: Sequence[str]) -> scipy.sparse.csr_array:
        found = (_divided(self.words.weighed(texts), self.by) @ self.columns).tocsr()
        found.data = np.minimum(found.data, 1.0) ** self.power
        return found


def _length(rows: scipy.sparse.csr_array) -> np.ndarray:
    return np.sqrt(rows.multiply(rows).sum(axis=1))


def _sum(rows: scipy.sparse.csr_array) -> np.ndarray:
    return rows.sum(axis=1)


def _divided(
    rows: scipy.sparse.csr_array, by: Callable[[scipy.sparse.csr_array], np.ndarray]
) -> scipy.sparse.csr_array:
    """Rows [n, W], each divided by its number; one without words has nothing to divide."""
    rows.data /= np.repeat(by(rows), np.diff(rows.indptr)).astype(np.float32)
    return rows


@dataclasses.dataclass(frozen=True)
class ByText:
    """The cosine of text vectors (wordllama's), for the nearest ones.

    Attributes:
      nearest: so many known queries.
      power: of the cosine.
      dim: of the vectors.
    """

    nearest: int = 20
    power: float = 16.0
    dim: int = 256

    def index(self, known: Sequence[str]) -> TextIndex:
        vectors = embed_texts(known, self.dim, "similar queries")
        index = faiss.IndexFlatIP(self.dim)
        index.add(vectors)
        return TextIndex(index, self)


@dataclasses.dataclass(frozen=True, eq=False)
class TextIndex:
    """`ByText` of some queries."""

    index: faiss.IndexFlatIP
    config: ByText

    def similarities(self, texts: Sequence[str]) -> scipy.sparse.csr_array:
        nearest = min(self.config.nearest, self.index.ntotal)
        cosine, found = self.index.search(embed_texts(texts, self.config.dim, "similar queries"), nearest)
        values = np.maximum(cosine, 0.0) ** self.config.power
        starts = np.arange(0, values.size + 1, nearest)
        shape = (len(texts), self.index.ntotal)
        return scipy.sparse.csr_array((values.ravel(), found.ravel().astype(np.int64), starts), shape=shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Conversions:
    """What texts that are known stand for.

    Attributes:
      index: of the known texts.
      counts: float32 [known, C], how often each stands for each class.
    """

    index: SimilarityIndex
    counts: scipy.sparse.csr_array

    def shares(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, C]: what known texts like each text stand for, shares; zeros where none is alike."""
        found = np.zeros((len(texts), self.counts.shape[1]), np.float32)
        for start in range(0, len(texts), _AT_ONCE):
            some = texts[start : start + _AT_ONCE]
            found[start : start + len(some)] = (self.index.similarities(some) @ self.counts).toarray()
        total = found.sum(axis=1, keepdims=True)
        return found / np.where(total > 0, total, 1.0)


def numbers_of_words(texts: Sequence[str]) -> dict[str, int]:
    """word -> number, of all words of some texts."""
    return {word: number for number, word in enumerate({word: 0 for text in texts for word in words_of(text)})}


def word_matrix(texts: Sequence[str], numbers: Mapping[str, int]) -> scipy.sparse.csr_array:
    """float32 [n, W], 1 for each known word of a text."""
    found = [[numbers[word] for word in words_of(text) if word in numbers] for text in texts]
    columns = np.fromiter((word for row in found for word in row), np.int64)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in found], dtype=np.int64)])
    shape = (len(texts), len(numbers))
    return scipy.sparse.csr_array((np.ones(len(columns), np.float32), columns, starts), shape=shape)
