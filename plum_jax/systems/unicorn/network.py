"""The network: context and target side by side, explicit crosses, then layers with residual connections; one logit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.model.projections import parameter
from plum_jax.queries.words import inverse_frequency
from plum_jax.ranking.networks.embedding import STD, FieldVectors, embedding
from plum_jax.systems.unicorn.examples import TASKS
from plum_jax.systems.unicorn.inputs import ContextSizes
from plum_jax.systems.unicorn.items import ItemSide

FEATURE_STD = 0.3  # of a projection of vectors of length one, so that what comes of it has entries of that size


@dataclasses.dataclass(frozen=True)
class UnicornConfig:
    """Sizes; the paper gives no layer counts.

    Attributes:
      width: of the vectors of items, queries and users.
      field_dim: of the embeddings of the task and of each field.
      item_ids: whether an item has an embedding of its own beside its features.
      cross_layers, cross_rank: L and r of the crosses.
      match_scale: what the cosines of context and target are multiplied by at first; a cosine that is to tell one item
        of thousands needs weights of ten and more, which small ones take thousands of steps to become.
      hidden: width of the residual layers.
      residual_blocks: of two layers each.
      dropout: behind the first layer of each block.
    """

    width: int = 32
    field_dim: int = 8
    item_ids: bool = True
    cross_layers: int = 2
    cross_rank: int = 16
    match_scale: float = 5.0
    hidden: int = 32
    residual_blocks: int = 1
    dropout: float = 0.1


class UnicornOutput(NamedTuple):
    """Attributes:
    logits: float32 [B, M], that the item is taken in the context.
    auxiliary_loss: None, as `objectives.log_loss` wants to know.
    """

    logits: jax.Array
    auxiliary_loss: None = None


class Crosses(nn.Module):
    """x_{l+1} = x_0 * (U_l V_l^T x_l + b_l) + x_l, rank r (DCN-v2, Wang et al., arXiv 2008.13535, eq. 1 and §3.2).

    x_0 is a context, equal for all targets of a row, beside what hangs on the target; V_0^T x_0 is the sum of the
    products with both, so that the context's is computed once a row.
    """

    layers: int
    rank: int

    @nn.compact
    def __call__(self, context: jax.Array, target: jax.Array) -> jax.Array:
        """`context` [B, C] and `target` [B, M, T] to [B, M, C + T]."""
        wide = jnp.broadcast_to(context[:, None], (*target.shape[:2], context.shape[-1]))
        first = jnp.concatenate([wide, target], axis=-1)
        low = nn.Dense(self.rank, use_bias=False, name="context_down")(context)[:, None]
        low = low + nn.Dense(self.rank, use_bias=False, name="target_down")(target)
        x = first
        for layer in range(self.layers):
            if layer:
                low = nn.Dense(self.rank, use_bias=False, name=f"down_{layer}")(x)
            x = first * nn.Dense(first.shape[-1], name=f"up_{layer}")(low) + x
        return x


class UnicornNetwork(nn.Module):
    """One logit for each context and target (UniCoRn, arXiv 2408.10394, §2).

    Inputs: the task, the user (nothing, a cluster, or a vector), country or segment, the query (the mean of its words'
    embeddings and its projected text vector), the source item, the target item; and of context and target together, the
    cosines of query and target text, of source and target by each kind of feature, of user and target where the user
    model has vectors of items, and the share of the query's words, by inverse document frequency, that are in the
    target's text. A context that is missing has a learnt vector.

    Attributes:
      config: sizes.
      sizes: of the columns.
      items: what is known of all items: constants.
    """

    config: UnicornConfig
    sizes: ContextSizes
    items: ItemSide

    def setup(self) -> None:
        c = self.config
        self.features = nn.Dense(c.width, kernel_init=nn.initializers.normal(FEATURE_STD))
        if c.item_ids:
            self.item_embedding = embedding(self, "item_embedding", len(self.items), c.width, "vocab")
        self.task_embedding = embedding(self, "task_embedding", len(TASKS), c.field_dim)
        self.word_embedding = embedding(self, "word_embedding", self.sizes.words, c.width, "vocab")
        self.query_features = nn.Dense(c.width, kernel_init=nn.initializers.normal(FEATURE_STD))
        self.fields = FieldVectors(self.sizes.fields, c.field_dim) if self.sizes.fields else None
        init = nn.initializers.normal(STD)
        self.no_query = parameter(self, "no_query_bias", init, ("width",), (c.width,), "float32")
        self.no_source = parameter(self, "no_source_bias", init, ("width",), (c.width,), "float32")
        if self.sizes.vector:
            self.user_features = nn.Dense(c.width, kernel_init=nn.initializers.normal(FEATURE_STD))
            self.no_user = parameter(self, "no_user_bias", init, ("width",), (c.width,), "float32")
        if self.sizes.clusters:
            self.cluster_embedding = embedding(self, "cluster_embedding", self.sizes.clusters, c.width)
        scale = nn.initializers.constant(c.match_scale)
        self.match_scale = parameter(self, "match_scale", scale, ("norm",), (self._num_matches,), "float32")
        self.crosses = Crosses(c.cross_layers, c.cross_rank)
        self.into = nn.Dense(c.hidden)
        self.blocks = [(nn.Dense(c.hidden), nn.Dense(c.hidden)) for _ in range(c.residual_blocks)]
        self.dropout = nn.Dropout(c.dropout)
        self.of_crosses, self.of_layers = nn.Dense(1, use_bias=False), nn.Dense(1)

    def __call__(self, batch: Mapping[str, jax.Array], deterministic: bool = True) -> UnicornOutput:
        """Of contexts with "targets" int32 [B, M]; with "log_q" float32 [B, M], the logits of a choice among drawn
        items: log q(target), up to a constant, is taken away, so that what ranks has no trace of how they are drawn.
        """
        logits = self.of_some(batch, self.table(), batch["targets"], deterministic)
        return UnicornOutput(logits - batch["log_q"] if "log_q" in batch else logits)

    @property
    def _num_matches(self) -> int:
        """P."""
        of_model = self.items.vectors
        answers = 0 if of_model is None or not self.sizes.vector else self.sizes.vector // of_model.shape[1]
        return 3 + len(self.items.blocks) + answers

    def table(self) -> jax.Array:
        """float32 [N, width], vectors of all items, as sources and as targets."""
        found = self.features(jnp.asarray(self.items.features))
        return found + self.item_embedding if self.config.item_ids else found

    def of_some(
        self, batch: Mapping[str, jax.Array], table: jax.Array, targets: jax.Array, deterministic: bool = True
    ) -> jax.Array:
        """float32 [B, M], logits of some items [B, M] of each context."""
        target = jnp.concatenate([jnp.take(table, targets, axis=0), self._matches(batch, targets)], axis=-1)
        return self.logits(self.context(batch, table), target, deterministic)

    def all_targets(self, batch: Mapping[str, jax.Array], table: jax.Array) -> jax.Array:
        """float32 [B, N, T], of every item what `logits` reads of it."""
        wide = jnp.broadcast_to(table, (len(batch["source"]), *table.shape))
        return jnp.concatenate([wide, self._matches(batch, None)], axis=-1)

    def context(self, batch: Mapping[str, jax.Array], table: jax.Array) -> jax.Array:
        """[B, C]."""
        words, source = batch["query_words"], batch["source"][:, None]
        real = (words > 0)[..., None]
        mean = jnp.sum(jnp.where(real, jnp.take(self.word_embedding, words, axis=0), 0.0), axis=1)
        mean = mean / jnp.maximum(jnp.sum(real, axis=1), 1)
        said = jnp.any(batch["query_vector"] != 0, axis=-1, keepdims=True) | jnp.any(real, axis=1)
        query = jnp.where(said, mean + self.query_features(batch["query_vector"]), self.no_query)
        taken = jnp.take(table, jnp.maximum(batch["source"], 0), axis=0)
        parts = [
            jnp.take(self.task_embedding, batch["task"], axis=0),
            query,
            jnp.where(source >= 0, taken, self.no_source),
        ]
        if self.fields is not None:
            parts.append(self.fields(batch["fields"]))
        if self.sizes.vector:
            user = self.user_features(batch["vector"])
            parts.append(jnp.where(batch["known"][:, None], user, self.no_user))
        if self.sizes.clusters:
            parts.append(jnp.take(self.cluster_embedding, batch["cluster"], axis=0))
        return jnp.concatenate(parts, axis=-1)

    def _matches(self, batch: Mapping[str, jax.Array], targets: jax.Array | None) -> jax.Array:
        """[B, M, P] of context and target together; of all items where `targets` is None."""
        items, source = self.items, jnp.maximum(batch["source"], 0)
        there = (batch["source"] >= 0)[:, None]
        found = [_products(batch["query_vector"], items.text, targets), self._overlap(batch["query_words"], targets)]
        for block in (items.text, *items.blocks):
            found.append(jnp.where(there, _products(jnp.take(jnp.asarray(block), source, axis=0), block, targets), 0.0))
        if self.sizes.vector and items.vectors is not None:
            answers = batch["vector"].reshape(len(source), -1, items.vectors.shape[1])
            found += [_products(answers[:, n], items.vectors, targets) for n in range(answers.shape[1])]
        stacked = jnp.stack(found, axis=-1)
        return stacked * self.match_scale

    def _overlap(self, query: jax.Array, targets: jax.Array | None) -> jax.Array:
        """[B, M], the share of the weight of a query's words [B, W] that stands in the target's text."""
        weights = jnp.asarray(inverse_frequency(self.items.words, self.sizes.words))[query]
        texts = jnp.asarray(self.items.words)
        texts = texts[None] if targets is None else jnp.take(texts, targets, axis=0)
        inside = jnp.zeros((len(query), texts.shape[1]))
        for place in range(query.shape[1]):  # one after the other: [B, M, W] at a time
            stands = jnp.any(texts == query[:, place, None, None], axis=-1)
            inside = inside + jnp.where(stands, weights[:, place, None], 0.0)
        return inside / jnp.maximum(jnp.sum(weights, axis=1), 1e-6)[:, None]

    def logits(self, context: jax.Array, target: jax.Array, deterministic: bool = True) -> jax.Array:
        """[B, M] of context [B, C] and target [B, M, T]: x = x + F(x) as in Deep Crossing (Shan et al., KDD 2016)."""
        crossed = self.crosses(context, target)
        x = self.into(crossed)
        for first, second in self.blocks:
            inner = self.dropout(nn.relu(first(nn.relu(x))), deterministic=deterministic)
            x = x + second(inner)
        return (self.of_crosses(crossed) + self.of_layers(nn.relu(x)))[..., 0]


def _products(vectors: jax.Array, table: np.ndarray, targets: jax.Array | None) -> jax.Array:
    """[B, M], products of vectors [B, D] with those of the targets."""
    if targets is None:
        return jnp.einsum("BD,ND->BN", vectors, jnp.asarray(table))
    return jnp.einsum("BD,BMD->BM", vectors, jnp.take(jnp.asarray(table), targets, axis=0))
