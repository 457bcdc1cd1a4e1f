"""The two towers: queries with their users, and items, as vectors of length one; what both read, one encoder reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.linear import default_kernel_init

from plum_jax.encoders.network import TextEncoder, TrunkConfig
from plum_jax.objectives.info_nce import unit
from plum_jax.objectives.scored_pool import ScoredPool
from plum_jax.queries.words import inverse_frequency
from plum_jax.ranking.networks.embedding import STD, embedding
from plum_jax.systems.product_search.items import ItemSide

TEXT, TERMS, GRAPH, CATEGORY, USER, PLACE = "text", "terms", "graph", "category", "user", "place"
PARTS = (TEXT, TERMS, GRAPH, CATEGORY, USER, PLACE)
OF_ITEMS = (TEXT, TERMS, GRAPH, CATEGORY, PLACE)


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Sizes, and what is read.

    Attributes:
      parts: "text", pieces read by a transformer; "terms", a weighed bag of words; "graph", an embedding of the item
        beside the mean of those of its neighbours; "category"; "user", past queries and items; "place".
      width: D, of both towers' vectors and of each part.
      hidden: of the layer in each tower.
      dropout: of that layer.
      begins_as_text: both towers begin as the text encoder's vectors, so that a pre-trained one's cosine is the score
        that training begins with; D is its width then, and "text" is read. What else is read is learnt beside it.
    """

    parts: tuple[str, ...] = (TEXT, TERMS, GRAPH, CATEGORY, USER)
    width: int = 64
    hidden: int = 128
    dropout: float = 0.1
    begins_as_text: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        wrong = [part for part in self.parts if part not in PARTS]
        if self.begins_as_text and TEXT not in self.parts:
            raise ValueError(f"towers that begin as text read it: expected 'text' among the parts, got {self.parts}")
        if wrong or not {TEXT, TERMS} & set(self.parts):
            raise ValueError(
                f"expected parts among {', '.join(PARTS)}, with 'text' or 'terms' to read a query by, got {self.parts}"
            )


class Tower(nn.Module):
    """Parts side by side to a vector of length one: a linear map beside a layer of rectified units.

    Attributes:
      width, hidden, dropout: as of `SearchConfig`.
      begins_as_first: the map begins as the identity of the first part, and the layer says nothing at first.
    """

    width: int
    hidden: int
    dropout: float
    begins_as_first: bool = False

    @nn.compact
    def __call__(self, parts: Sequence[jax.Array], deterministic: bool) -> jax.Array:
        x, first = jnp.concatenate(parts, axis=-1), self.begins_as_first
        inner = nn.Dropout(self.dropout)(nn.relu(nn.Dense(self.hidden)(x)), deterministic=deterministic)
        linear = nn.Dense(self.width, use_bias=False, kernel_init=identity if first else default_kernel_init)
        added = nn.Dense(self.width, kernel_init=nn.initializers.zeros_init() if first else default_kernel_init)
        return unit(linear(x) + added(inner))


def identity(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Initialiser of a product that gives its first inputs; those behind them it gives nothing of."""
    return jnp.eye(*shape, dtype=dtype)


class SearchNetwork(nn.Module):
    """Queries with their users and items in one space (Etsy, arXiv 2306.04833, §4); a score is a cosine.

    Shared by both towers: the text transformer, the words' embeddings, the items' and categories' (a user's past items
    are read by them) and the places'. The graph part is one hop: the item's embedding beside the mean of its
    neighbours', learnt with all the rest.

    Attributes:
      config: sizes and parts.
      trunk: of the text transformer.
      vocab_size: of its pieces.
      num_words: of the words' embedding.
      items: what is known of all items: constants.
    """

    config: SearchConfig
    trunk: TrunkConfig
    vocab_size: int
    num_words: int
    items: ItemSide

    def setup(self) -> None:
        c, items = self.config, self.items
        if c.begins_as_text and c.width != self.trunk.d_model:
            raise ValueError(
                f"towers that begin as the text encoder's vectors are as wide as it: expected a width of "
                f"{self.trunk.d_model}, got {c.width}: set SEARCH_WIDTH"
            )
        # The transformer's parameters lie in the text encoder, whatever the tower that reads by it.
        if TEXT in c.parts:
            self.text = TextEncoder(self.trunk, self.vocab_size, "mean")
            # States have entries of size 1: they begin as small as embeddings, so that no part drowns the others.
            small = nn.initializers.normal(STD / self.trunk.d_model**0.5)
            self.text_width = nn.Dense(c.width, kernel_init=identity if c.begins_as_text else small)
        if TERMS in c.parts:
            self.word_embedding = embedding(self, "word_embedding", self.num_words, c.width, "vocab")
        if GRAPH in c.parts:
            self.item_embedding = embedding(self, "item_embedding", 1 + len(items), c.width, "vocab")
        if CATEGORY in c.parts:
            self.category_embedding = embedding(self, "category_embedding", items.num_categories, c.width)
        if PLACE in c.parts:
            self.place_embedding = embedding(self, "place_embedding", items.num_places, c.width)
        self.query_tower = Tower(c.width, c.hidden, c.dropout, c.begins_as_text)
        self.item_tower = Tower(c.width, c.hidden, c.dropout, c.begins_as_text)

    def __call__(self, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Vectors [B, D] of the searches (`Searches.columns`) and of the items "target"."""
        return self.of_queries(batch), self.of_items(batch["target"])

    def of_items(self, ids: jax.Array, deterministic: bool = True) -> jax.Array:
        """float32 [M, D], of items int32 [M]."""
        parts, items = [], self.items
        if TEXT in self.config.parts:
            tokens, lengths = (jnp.take(jnp.asarray(array), ids, axis=0) for array in items.tokens)
            parts.append(self._text(tokens, lengths, deterministic))
        parts += self._without_text(ids)
        if PLACE in self.config.parts:
            parts.append(jnp.take(self.place_embedding, jnp.take(jnp.asarray(items.place), ids, axis=0), axis=0))
        return self.item_tower(parts, deterministic)

    def of_queries(self, batch: Mapping[str, jax.Array], deterministic: bool = True) -> jax.Array:
        """float32 [B, D], of columns of `Searches.columns`."""
        parts, read = [], self.config.parts
        if TEXT in read:
            parts.append(self._text(batch["query_tokens"], batch["query_lengths"], deterministic))
        if TERMS in read:
            parts.append(self._bag(batch["query_words"]))
        if USER in read:
            past, there = jnp.maximum(batch["past_items"] - 1, 0), batch["past_items"] > 0
            parts += [_mean(part, there) for part in self._without_text(past)]
            if TERMS in read:
                parts.append(self._bag(batch["past_words"]))
        if PLACE in read:
            parts.append(jnp.take(self.place_embedding, batch["place"], axis=0))
        return self.query_tower(parts, deterministic)

    def pool(self, batch: Mapping[str, jax.Array], deterministic: bool = True) -> ScoredPool:
        """The searches of a batch against its own items and those that were drawn (`feed.SearchFeed`). The item that a
        query is to find is no negative of it, wherever it comes from.
        """
        queries, target = self.of_queries(batch, deterministic), batch["target"]
        ids = jnp.concatenate([target, batch["uniform"].reshape(-1)])
        items = self.of_items(ids, deterministic)
        return ScoredPool(
            own=jnp.sum(queries * items[: len(target)], axis=1),
            scores=queries @ items.T,
            negative=ids[None, :] != target[:, None],
            uniform=jnp.arange(len(ids)) >= len(target),
            log_count=jnp.concatenate([batch["target_log_count"], batch["uniform_log_count"].reshape(-1)]),
            hard_weight=batch["hard_weight"],
        )

    def _text(self, tokens: jax.Array, lengths: jax.Array, deterministic: bool) -> jax.Array:
        return self.text_width(self.text(tokens, lengths, deterministic))

    def _without_text(self, ids: jax.Array) -> list[jax.Array]:
        """[..., D] each, what is read of items int32 [...] but their text: short enough for a user's past."""
        parts, read, items = [], self.config.parts, self.items
        if TERMS in read:
            parts.append(self._bag(jnp.take(jnp.asarray(items.words), ids, axis=0)))
        if GRAPH in read:
            neighbours = jnp.take(jnp.asarray(items.neighbours), ids, axis=0)
            around = jnp.take(self.item_embedding, neighbours, axis=0)
            parts += [jnp.take(self.item_embedding, 1 + ids, axis=0), _mean(around, neighbours > 0)]
        if CATEGORY in read:
            categories = jnp.take(jnp.asarray(items.categories), ids, axis=0)
            parts.append(_mean(jnp.take(self.category_embedding, categories, axis=0), categories > 0))
        return parts

    def _bag(self, words: jax.Array) -> jax.Array:
        """[..., D], the mean of words' embeddings [..., W], weighed by their inverse document frequency."""
        idf = jnp.asarray(inverse_frequency(self.items.words, self.num_words))
        weights = jnp.take(idf, words, axis=0)[..., None]
        total = jnp.sum(jnp.take(self.word_embedding, words, axis=0) * weights, axis=-2)
        return total / jnp.maximum(jnp.sum(weights, axis=-2), 1e-6)


def _mean(vectors: jax.Array, there: jax.Array) -> jax.Array:
    """[..., D] of vectors [..., K, D] where `there` [..., K]; 0 where none is."""
    total = jnp.sum(jnp.where(there[..., None], vectors, 0.0), axis=-2)
    return total / jnp.maximum(jnp.sum(there, axis=-1), 1)[..., None]
