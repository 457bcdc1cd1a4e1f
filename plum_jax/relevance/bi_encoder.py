"""A bi-encoder as a student: its items are computed once, and a pair costs a small head."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.features.text import embed_texts
from plum_jax.corpus.sources.judgements import JudgedQueries
from plum_jax.encoders.language_model import LanguageModel
from plum_jax.encoders.text_vectors import TextVectors
from plum_jax.feeds.batches import Batch
from plum_jax.model.int8 import dequantised
from plum_jax.queries.words import KnownWords, inverse_frequency, words_of
from plum_jax.relevance.bi_network import BiNetwork, Side, Texts, WordTable
from plum_jax.relevance.pairs import Pairs

_SIZES = (32, 128, 1024, 8192)  # rows of the compiled programs


@dataclasses.dataclass(frozen=True)
class BiEncoder:
    """A bag of words and a text vector on either side, or two.

    Attributes:
      width: of the sides' vectors.
      hidden: of the head.
      word_dim: of the words' embeddings, which begin as wordllama's vectors.
      text_dim: of the text vectors, wordllama's too.
      query_words, item_words: that are read of each.
      dropout: in the head.
      language_model: an imported one, not trained on, whose vectors of whole texts are read behind wordllama's; None:
        these alone. No manifest describes it: the reader's fingerprint has its vectors.
    """

    width: int = 32
    hidden: int = 64
    word_dim: int = 64
    text_dim: int = 128
    query_words: int = 8
    item_words: int = 16
    dropout: float = 0.1
    language_model: LanguageModel | None = dataclasses.field(default=None, metadata=artifact.NOT_DESCRIBED)

    def reader(self, judged: JudgedQueries, classes: int, directory: epath.PathLike, run: epath.PathLike) -> BiReader:
        """What training and scoring read.

        Args:
          judged: queries and items; words are known of training queries, and of items where two have them.
          classes: C.
          directory: of the training; nothing is written.
          run: directory of the run, whose models share a language model's vectors.

        Raises:
          ValueError: a language model without imported weights.
        """
        words = KnownWords.of(judged.training_queries, judged.texts)
        of_words = embed_texts(words.words, self.word_dim, "words")
        vectors = np.concatenate([np.zeros((1, self.word_dim), np.float32), of_words])
        numbers = words.numbers(judged.texts, self.item_words)
        table = WordTable(vectors, inverse_frequency(numbers, words.size))
        of_queries = embed_texts(judged.queries, self.text_dim, "queries")
        of_items = embed_texts(judged.texts, self.text_dim, "items")
        sentences: TextVectors | None = None
        text_dims: tuple[int, ...] = (self.text_dim,)
        if self.language_model is not None:
            sentences = TextVectors(self.language_model.start((), directory))
            of_sentences = sentences.of_both(judged.queries, judged.texts, run)
            of_queries, of_items = (np.hstack(both) for both in zip((of_queries, of_items), of_sentences, strict=True))
            text_dims += (sentences.dim,)
        network = BiNetwork(table, self.width, self.hidden, classes, self.dropout, text_dims)
        queries = _query_texts(self, words, judged.queries, of_queries)
        items = Texts(numbers, np.zeros(len(judged.texts), np.float32), of_items)
        return BiReader(self, words, network, sentences, queries, items)


@dataclasses.dataclass(frozen=True, eq=False)
class BiReader:
    """Attributes:
    config: of it.
    words: that are known.
    network: over them.
    sentences: the language model that is read besides; None: none is.
    queries: of the data.
    items: of the data.
    """

    config: BiEncoder
    words: KnownWords
    network: BiNetwork
    sentences: TextVectors | None
    queries: Texts
    items: Texts

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of all that is read."""
        return artifact.fingerprint(self.words.words, *self.items)

    @property
    def reading_params(self) -> Any:
        """Of the language model."""
        return {} if self.sentences is None else self.sentences.start.params

    def read_queries(self, texts: Sequence[str]) -> Texts:
        """Queries, by a pass of the language model where there is one: nothing that is kept is read."""
        vectors = embed_texts(texts, self.config.text_dim, "queries")
        if self.sentences is not None:
            vectors = np.hstack([vectors, self.sentences.of(texts)])
        return _query_texts(self.config, self.words, texts, vectors)

    def lengths(self, queries: Texts, pairs: Pairs) -> np.ndarray:
        """int [n], all one: pairs are as large as each other."""
        return np.ones(len(pairs), np.int32)

    def columns(self, queries: Texts, pairs: Pairs) -> Batch:
        """Of a `BiNetwork`."""
        sides = {"query": _rows(queries, pairs.query), "item": _rows(self.items, pairs.item)}
        return {f"{side}_{name}": column for side, texts in sides.items() for name, column in texts._asdict().items()}

    def initial(self, network: BiNetwork, start: Any, key: jax.Array) -> Any:
        """Random parameters, and the words' vectors; `start` is None, for a bi-encoder begins with nothing else."""
        first = Pairs(*np.zeros((3, 1), np.int32))
        return network.init(key, self.columns(self.items, first))["params"]

    def scorer(self, params: Any) -> BiScorer:
        """Parameters as a model that is asked; the items' side is computed."""
        params = jax.device_put(params)
        parts = [
            _padded(functools.partial(_of_items, self.network, params), _rows(self.items, rows), len(rows))
            for rows in np.array_split(np.arange(len(self.items.words)), -(-len(self.items.words) // _SIZES[-1]))
        ]
        vector = np.concatenate(parts)
        return BiScorer(self, params, Side(self.items, vector))


@dataclasses.dataclass(frozen=True, eq=False)
class BiScorer:
    """Attributes:
    reader: texts.
    params: arrays, or `Int8Weights` among them.
    items: computed.
    """

    reader: BiReader
    params: Any
    items: Side

    def logits(self, queries: Texts, pairs: Pairs) -> np.ndarray:
        """float32 [n, C]."""
        found = []
        for start in range(0, len(pairs), _SIZES[-1]):
            rows = pairs.of(np.arange(start, min(start + _SIZES[-1], len(pairs))))
            item = Side(_rows(self.items.texts, rows.item), self.items.vector[rows.item])
            score = functools.partial(_of_pairs, self.reader.network, self.params)
            found.append(_padded(score, (_rows(queries, rows.query), item), len(rows)))
        return np.concatenate(found)


def _query_texts(config: BiEncoder, words: KnownWords, texts: Sequence[str], vectors: np.ndarray) -> Texts:
    numbers = words.numbers(texts, config.query_words)
    count = np.array([len(words_of(text)) for text in texts])
    unknown = np.maximum(np.minimum(count, config.query_words) - (numbers > 0).sum(axis=1), 0)
    return Texts(numbers, unknown.astype(np.float32), vectors)


def _rows(texts: Texts, rows: np.ndarray) -> Texts:
    return Texts(*(np.asarray(column)[rows] for column in texts))


def _padded(compute: Any, columns: Any, rows: int) -> np.ndarray:
    """What `compute` gives for columns [rows, ...], by the smallest compiled program that takes as many."""
    size = next(size for size in _SIZES if rows <= size)
    filled = jax.tree.map(lambda x: np.pad(x, [(0, size - rows)] + [(0, 0)] * (np.ndim(x) - 1)), columns)
    return np.asarray(compute(filled))[:rows]


@functools.partial(jax.jit, static_argnums=0)
def _of_items(network: BiNetwork, params: Any, texts: Texts) -> jax.Array:
    return network.bind({"params": dequantised(params)}).item(texts).vector


@functools.partial(jax.jit, static_argnums=0)
def _of_pairs(network: BiNetwork, params: Any, columns: tuple[Texts, Side]) -> jax.Array:
    texts, item = columns
    bound = network.bind({"params": dequantised(params)})
    return bound.pairs(bound.query(texts), item)
