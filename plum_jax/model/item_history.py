"""One position an item: a Transformer reads a history of items, and a small one writes the next item's Semantic ID.

As in MARIUS (arXiv 2508.14910) and RQ-Transformer (arXiv 2203.01941): the long Transformer has as many positions as the
history has items, and the depth Transformer, from the state of one position, as many as an ID has levels.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Transformer
from plum_jax.model.depth_decoder import DepthDecoder, level_offsets
from plum_jax.model.masks import Mask
from plum_jax.model.projections import parameter
from plum_jax.model.repeats import AGES, SCALE


@dataclasses.dataclass(frozen=True)
class ItemHistoryConfig:
    """Sizes of the three parts.

    Attributes:
      transformer: over the items of a history; its `d_model` is that of items.
      depth: over the levels of an ID.
      item_ids: whether an item also has a row of its own beside its codes and features.
      id_dropout: share of the items whose own row is left out in training, so that codes and features say what they can
        without it: of new items there is nothing else.
      repeats: whether a score knows that its item is in the history, and how long ago (`model.repeats`).
    """

    transformer: DecoderConfig = DecoderConfig(num_layers=2, scan_layers=False)
    depth: DecoderConfig = DecoderConfig(num_layers=1, scan_layers=False)
    item_ids: bool = True
    id_dropout: float = 0.2
    repeats: bool = True


@flax.struct.dataclass
class Items:
    """What is known of some items.

    Attributes:
      ids: int32 `[...]`, rows of the table of items.
      known: bool `[...]`, whether the item was in training: the row of another means nothing.
      codes: int32 `[..., L]`, of the Semantic ID.
      features: float `[..., F]`, of its content; F may be 0.
    """

    ids: jax.Array
    known: jax.Array
    codes: jax.Array
    features: jax.Array


class ItemEmbedding(nn.Module):
    """Items to vectors `[..., D]`: code embeddings of all levels, projected features and a row of its own, summed.

    One linear layer over all of them side by side, codes and items as one-hot vectors, is the same.

    Attributes:
      config: of the Transformer that reads them.
      codebook_sizes: W of each level; () without codes.
      num_items, feature_dim: N and F.
      item_ids, id_dropout: as in `ItemHistoryConfig`.
    """

    config: DecoderConfig
    codebook_sizes: tuple[int, ...]
    num_items: int
    feature_dim: int
    item_ids: bool = True
    id_dropout: float = 0.0

    @nn.compact
    def __call__(self, items: Items, deterministic: bool = True) -> jax.Array:
        c, init, axes = self.config, nn.initializers.normal(0.02), ("vocab", "embed")
        x = jnp.zeros((), c.param_dtype)
        if self.codebook_sizes:
            table = parameter(self, "codes", init, axes, (sum(self.codebook_sizes), c.d_model), c.param_dtype)
            for level, offset in enumerate(level_offsets(self.codebook_sizes)):
                x = x + jnp.take(table, items.codes[..., level] + jnp.int32(offset), axis=0)
        if self.feature_dim:
            # As small as a code's row: features are of length one, and what is large at first is never forgotten.
            project = nn.Dense(
                c.d_model, use_bias=False, param_dtype=jnp.dtype(c.param_dtype), kernel_init=init, name="features"
            )
            x = x + project(items.features)
        if self.item_ids:
            own = parameter(self, "ids", init, axes, (self.num_items, c.d_model), c.param_dtype)
            kept = items.known
            if not deterministic and self.id_dropout:
                drawn = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.id_dropout, kept.shape)
                kept = kept & drawn
            x = x + jnp.where(kept[..., None], jnp.take(own, items.ids, axis=0), 0.0)
        return x.astype(c.dtype)


class FieldEmbedding(nn.Module):
    """What is known of events beside their items, buckets int32 `[..., F]`, to the sum of their rows `[..., D]`.

    Attributes:
      config: of the Transformer that reads them.
      field_sizes: buckets of each field.
    """

    config: DecoderConfig
    field_sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, fields: jax.Array) -> jax.Array:
        c = self.config
        shape = (sum(self.field_sizes), c.d_model)
        table = parameter(self, "table", nn.initializers.normal(0.02), ("vocab", "embed"), shape, c.param_dtype)
        places = fields + jnp.asarray(level_offsets(self.field_sizes), jnp.int32)
        return jnp.sum(jnp.take(table, places, axis=0), axis=-2).astype(c.dtype)


class ItemHistoryNetwork(nn.Module):
    """What is trained: items to vectors, histories to states, states to codes.

    Attributes:
      config: sizes.
      codebook_sizes: W of each level.
      num_items: N.
      feature_dim: of an item's content.
      field_sizes: buckets of each field of an event; () reads items alone.
      attention: the kernel of the long Transformer.
    """

    config: ItemHistoryConfig
    codebook_sizes: tuple[int, ...]
    num_items: int
    feature_dim: int
    field_sizes: tuple[int, ...] = ()
    attention: AttentionFunction = EinsumAttention()

    def setup(self) -> None:
        c = self.config
        sizes = (self.codebook_sizes, self.num_items, self.feature_dim)
        self.items = ItemEmbedding(c.transformer, *sizes, c.item_ids, c.id_dropout)
        self.fields = FieldEmbedding(c.transformer, self.field_sizes) if self.field_sizes else None
        self.transformer = Transformer(c.transformer, self.attention)
        self.depth = DepthDecoder(c.depth, self.codebook_sizes)
        self.dropout = nn.Dropout(c.transformer.dropout_rate)
        if c.repeats:
            self.repeats = parameter(self, "repeats", nn.initializers.zeros_init(), ("norm",), (AGES,), "float32")

    def vectors(self, items: Items, deterministic: bool = True) -> jax.Array:
        """`[..., D]`: how an item is read, and what a state is compared with."""
        return self.items(items, deterministic)

    def states(
        self, items: Items, fields: jax.Array, positions: jax.Array, mask: Mask, deterministic: bool = True
    ) -> jax.Array:
        """`[B, T, D]` behind each event of the histories: its item and its `fields` `[B, T, F]`."""
        x = events_read(self.items(items, deterministic), self.fields, fields)
        x = nn.with_logical_constraint(x, ("batch", "length", "embed_activation"))
        x = self.dropout(x, deterministic=deterministic)
        return self.transformer(x, positions, mask, deterministic=deterministic).values

    def repeat_worth(self) -> jax.Array:
        """float32 `[AGES]`, added to the score of an item that was seen so long ago."""
        return SCALE * self.repeats if self.config.repeats else jnp.zeros(AGES, jnp.float32)

    def depth_states(self, states: jax.Array, codes: jax.Array, deterministic: bool = True) -> jax.Array:
        """As `DepthDecoder.states`."""
        return self.depth.states(states, codes, deterministic)

    def code_logits(self, hidden: jax.Array, level: int) -> jax.Array:
        """As `DepthDecoder.logits`."""
        return self.depth.logits(hidden, level)

    def __call__(self, items: Items, fields: jax.Array, positions: jax.Array, mask: Mask) -> jax.Array:
        """Touches every parameter, for initialising; the logits of the last level."""
        states = self.states(items, fields, positions, mask)
        hidden = self.depth_states(states, items.codes)
        return self.code_logits(hidden, len(self.codebook_sizes) - 1)


def events_read(vectors: jax.Array, embedding: FieldEmbedding | None, fields: jax.Array) -> jax.Array:
    """What the Transformer reads of events, `[B, T, D]` with entries of about unit variance."""
    x = vectors if embedding is None else vectors + embedding(fields)
    return x * jnp.asarray(x.shape[-1] ** 0.5, x.dtype)
