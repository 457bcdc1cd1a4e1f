"""The bi-encoder's network: a vector of each side, and a small head over both sides' vectors and words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

MATCH_SCALE = 4.0  # of numbers in [0, 1]: as weights are small at first, they would take long to count


class Texts(NamedTuple):
    """Texts as they are read.

    Attributes:
      words: int32 [n, W], numbers of known words, 0 behind the last.
      unknown: float32 [n], how many words are not known.
      vectors: float32 [n, E_t], of the whole text, one or more side by side, each of length one or zero.
    """

    words: np.ndarray | jax.Array
    unknown: np.ndarray | jax.Array
    vectors: np.ndarray | jax.Array


class Side(NamedTuple):
    """What is kept of queries or items, so that a pair costs the head alone.

    Attributes:
      texts: n of them.
      vector: float32 [n, D], an array of NumPy's or JAX's.
    """

    texts: Texts
    vector: Any


@dataclasses.dataclass(frozen=True, eq=False)
class WordTable:
    """Known words by number; 0 is none.

    Attributes:
      vectors: float32 [V, E], which embeddings begin with.
      rarity: float32 [V], inverse document frequencies.
    """

    vectors: np.ndarray
    rarity: np.ndarray


class BiNetwork(nn.Module):
    """Batches of `Texts` as columns "query_words", ..., "item_vectors" to logits float32 [B, C].

    A side's vector is a layer over the mean of its words' embeddings and the text vector. The head reads the product of
    both vectors, their cosine, those of the text vectors, and how near the item's nearest word is to each word of the
    query, 1 for the word itself: the mean, the mean by inverse document frequency, the least, the share that is there;
    and how many words either has.

    Attributes:
      words: the table.
      width: D.
      hidden: of the head's layer.
      classes: C.
      dropout: of the product and in front of the head's last layer: the product is what learns queries by heart.
      text_dims: of the text vectors that stand side by side, E_t in all.
    """

    words: WordTable
    width: int
    hidden: int
    classes: int
    dropout: float
    text_dims: tuple[int, ...]

    def setup(self) -> None:
        self.embedding = self.param("embedding", lambda _: jnp.asarray(self.words.vectors))
        self.query_layer, self.item_layer = nn.Dense(self.width), nn.Dense(self.width)
        self.interaction = nn.Dense(self.hidden)
        self.drop = nn.Dropout(self.dropout)
        self.head = nn.Dense(self.classes)

    def query(self, texts: Texts) -> Side:
        """Queries."""
        return Side(texts, self.query_layer(self._features(texts)))

    def item(self, texts: Texts) -> Side:
        """Items."""
        return Side(texts, self.item_layer(self._features(texts)))

    def pairs(self, query: Side, item: Side, deterministic: bool = True) -> jax.Array:
        """Logits of pairs, row by row."""
        product = query.vector * item.vector
        cosines = [_cosine(query.vector, item.vector), *self._text_cosines(query.texts, item.texts)]
        numbers = MATCH_SCALE * jnp.stack([*cosines, *self._matches(query.texts, item.texts)], axis=-1)
        product = self.drop(product, deterministic=deterministic)
        hidden = jax.nn.relu(self.interaction(jnp.concatenate([product, numbers], axis=-1)))
        return self.head(self.drop(hidden, deterministic=deterministic))

    def __call__(self, batch: Mapping[str, jax.Array], deterministic: bool = True) -> jax.Array:
        query, item = (Texts(*(batch[f"{side}_{name}"] for name in Texts._fields)) for side in ("query", "item"))
        return self.pairs(self.query(query), self.item(item), deterministic)

    def _features(self, texts: Texts) -> jax.Array:
        there = (texts.words > 0)[..., None]
        words = jnp.sum(jnp.where(there, self.embedding[texts.words], 0.0), axis=-2)
        mean = words / jnp.maximum(jnp.sum(there, axis=-2), 1)
        return jnp.concatenate([mean, texts.vectors], axis=-1)

    def _text_cosines(self, query: Texts, item: Texts) -> list[jax.Array]:
        """[B] each."""
        ends = np.cumsum(self.text_dims)[:-1]
        return [jnp.sum(part, axis=-1) for part in jnp.split(query.vectors * item.vectors, ends, axis=-1)]

    def _matches(self, query: Texts, item: Texts) -> list[jax.Array]:
        """[B] each. A query's word that is not known is near nothing."""
        of_query, of_item = (_unit(self.embedding[texts.words]) for texts in (query, item))
        near = jnp.einsum("bqe,bie->bqi", of_query, of_item)
        near = jnp.max(jnp.where((item.words > 0)[:, None], near, 0.0), axis=-1)
        there, count = query.words > 0, jnp.sum(query.words > 0, axis=-1) + query.unknown
        near, count = jnp.where(there, near, 0.0), jnp.maximum(count, 1)
        rarity = jnp.where(there, jnp.asarray(self.words.rarity)[query.words], 0.0)
        total = jnp.sum(rarity, axis=-1) + query.unknown * float(self.words.rarity.max(initial=1.0))
        same = jnp.any((query.words[..., None] == item.words[:, None]) & there[..., None], axis=-1)
        least = jnp.where(query.unknown > 0, 0.0, jnp.min(jnp.where(there, near, 1.0), axis=-1))
        return [
            jnp.sum(near, axis=-1) / count,
            jnp.sum(near * rarity, axis=-1) / jnp.maximum(total, 1e-6),
            least,
            jnp.sum(same, axis=-1) / count,
            jnp.log(count.astype(jnp.float32)) / 3,
            jnp.log1p(jnp.sum(item.words > 0, axis=-1).astype(jnp.float32)) / 3,
        ]


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def _cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(_unit(a) * _unit(b), axis=-1)
