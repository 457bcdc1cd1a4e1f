"""Orders of items that nothing is trained for: by the cosine of text vectors, and by BM25."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath

from plum_jax.corpus.features.text import embed_texts
from plum_jax.encoders.language_model import LanguageModelStart
from plum_jax.encoders.text_vectors import TextVectors
from plum_jax.queries.words import require_words, words_of
from plum_jax.relevance.pairs import Pairs

DIM = 256  # of text vectors, all that there are


def text_cosine(queries: Sequence[str], texts: Sequence[str], pairs: Pairs) -> np.ndarray:
    """float32 [n], of wordllama's vectors of a pair's query and item."""
    of_queries, of_items = embed_texts(queries, DIM, "queries"), embed_texts(texts, DIM, "items")
    return np.sum(of_queries[pairs.query] * of_items[pairs.item], axis=1)


def language_model_cosine(
    start: LanguageModelStart, queries: Sequence[str], texts: Sequence[str], pairs: Pairs, run: epath.PathLike
) -> np.ndarray:
    """float32 [n], of the vectors that an imported language model gives a pair's query and item, untrained.

    Those of all texts are kept in the directory of the run, for bi-encoders may read them too.
    """
    of_queries, of_items = TextVectors(start).of_both(queries, texts, run)
    return np.sum(of_queries[pairs.query] * of_items[pairs.item], axis=1)


def nearest_items(query: str, texts: Sequence[str], count: int) -> np.ndarray:
    """int [count], at most all items, by the cosine of text vectors with a query's.

    Raises:
      ValueError: a query without a word.
    """
    require_words(query)
    cosines = embed_texts(texts, DIM, "items") @ embed_texts([query], DIM, "query")[0]
    return np.argsort(-cosines, kind="stable")[:count]


@dataclasses.dataclass(frozen=True)
class BM25:
    """Okapi BM25 (Robertson & Zaragoza 2009, eq. 3.15) over texts in which a word counts once, as in titles it does.

    Attributes:
      k1: how soon a word's repetitions, of which there are none, and lengths saturate.
      b: how much a long text is discounted.
    """

    k1: float = 1.2
    b: float = 0.75

    def scores(self, queries: Sequence[str], texts: Sequence[str], pairs: Pairs) -> np.ndarray:
        """float64 [n], sums over the words that query and item share of idf (k1 + 1) / (1 + k1 (1 - b + b l / mean l)),
        idf = log(1 + (N - n + .5) / (n + .5)) of a word in n of N texts.
        """
        words = [frozenset(words_of(text)) for text in texts]
        there: dict[str, int] = {}
        for of_text in words:
            for word in of_text:
                there[word] = there.get(word, 0) + 1
        lengths = np.array([len(of_text) for of_text in words])
        discount = (self.k1 + 1) / (1 + self.k1 * (1 - self.b + self.b * lengths / max(lengths.mean(), 1e-9)))
        idf = {word: np.log1p((len(texts) - n + 0.5) / (n + 0.5)) for word, n in there.items()}
        asked = [words_of(query) for query in queries]
        shared = [
            sum(idf[word] for word in asked[query] if word in words[item])
            for query, item in zip(pairs.query, pairs.item, strict=True)
        ]
        return np.array(shared) * discount[pairs.item]
