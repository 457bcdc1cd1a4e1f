"""One position an item: a Transformer reads a history of items, and a small one writes the next item's Semantic ID.

As in MARIUS (arXiv 2508.14910) and RQ-Transformer (arXiv 2203.01941): the long Transformer has as many positions as the
history has items, and the depth Transformer, from the state of one position, as many as an ID has levels.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.cache import KVCache
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import DecoderOutput, Transformer
from plum_jax.model.masks import Mask, PackedCausal
from plum_jax.model.projections import parameter, product


@dataclasses.dataclass(frozen=True)
class ItemHistoryConfig:
    """Sizes of the three parts.

    Attributes:
      transformer: over the items of a history; its `d_model` is that of items.
      depth: over the levels of an ID.
      item_ids: whether an item also has a row of its own beside its codes and features.
      id_dropout: share of the items whose own row is left out in training, so that codes and features say what they can
        without it: of new items there is nothing else.
    """

    transformer: DecoderConfig = DecoderConfig(num_layers=2, scan_layers=False)
    depth: DecoderConfig = DecoderConfig(num_layers=1, scan_layers=False)
    item_ids: bool = True
    id_dropout: float = 0.2


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
    """Items to vectors `[..., D]`: code embeddings of all levels, projected features and a row of its own, summed."""

    config: ItemHistoryConfig
    codebook_sizes: tuple[int, ...]
    num_items: int
    feature_dim: int

    @nn.compact
    def __call__(self, items: Items, deterministic: bool = True) -> jax.Array:
        c = self.config.transformer
        levels, init = len(self.codebook_sizes), nn.initializers.normal(0.02)
        axes, rows = ("vocab", "embed"), sum(self.codebook_sizes)
        table = parameter(self, "codes", init, axes, (rows, c.d_model), c.param_dtype)
        offsets = jnp.asarray(level_offsets(self.codebook_sizes), jnp.int32)
        x = sum(jnp.take(table, items.codes[..., level] + offsets[level], axis=0) for level in range(levels))
        x = jnp.asarray(x)
        if self.feature_dim:
            x = x + nn.Dense(c.d_model, use_bias=False, param_dtype=jnp.dtype(c.param_dtype), name="features")(
                items.features
            )
        if self.config.item_ids:
            own = parameter(self, "ids", init, axes, (self.num_items, c.d_model), c.param_dtype)
            kept = items.known
            if not deterministic and self.config.id_dropout:
                drawn = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.config.id_dropout, kept.shape)
                kept = kept & drawn
            x = x + jnp.where(kept[..., None], jnp.take(own, items.ids, axis=0), 0.0)
        return x.astype(c.dtype)


class DepthDecoder(nn.Module):
    """From the state of a position to the codes of the next item, level by level.

    Attributes:
      config: of the small Transformer.
      codebook_sizes: W of each level; its tokens are the codes of all levels, one after the other.
      attention: the kernel.
    """

    config: DecoderConfig
    codebook_sizes: tuple[int, ...]
    attention: AttentionFunction = EinsumAttention()

    def setup(self) -> None:
        c = self.config
        rows, axes = sum(self.codebook_sizes), ("vocab", "embed")
        init = nn.initializers.normal(c.d_model**-0.5)
        self.start = nn.Dense(c.d_model, use_bias=False, param_dtype=jnp.dtype(c.param_dtype))
        self.embedding = parameter(self, "embedding", init, axes, (rows, c.d_model), c.param_dtype)
        self.head = parameter(self, "head", init, axes, (rows, c.d_model), c.param_dtype)
        self.transformer = Transformer(c, self.attention)
        self.dropout = nn.Dropout(c.dropout_rate)

    def states(self, states: jax.Array, codes: jax.Array, deterministic: bool = True) -> jax.Array:
        """What predicts each code: `[B, T, D]` states and the codes `[B, T, L]` that follow, to `[B x T, L, D']`."""
        levels = len(self.codebook_sizes)
        tokens = codes.reshape(-1, levels)[:, :-1] + jnp.asarray(level_offsets(self.codebook_sizes)[:-1], jnp.int32)
        first = self.start(states.reshape(-1, 1, states.shape[-1]))
        x = jnp.concatenate([first, self._inputs(tokens)], axis=1)
        x = self.dropout(x, deterministic=deterministic)
        places = jnp.broadcast_to(jnp.arange(levels, dtype=jnp.int32), x.shape[:2])
        causal = jnp.broadcast_to(jnp.tri(levels, dtype=bool), (len(x), levels, levels))
        return self.transformer(x, places, causal, deterministic=deterministic).values

    def begin(self, states: jax.Array) -> DecoderOutput:
        """States `[B, 1, D]` to those that predict the first code, `[B, 1, D']`, with the cache."""
        x = self.start(states)
        places, itself = jnp.zeros(x.shape[:2], jnp.int32), jnp.ones((*x.shape[:2], 1), bool)
        return self.transformer(x, places, itself, KVCache())

    def hidden(self, tokens: jax.Array, positions: jax.Array, mask: Mask, cache: KVCache) -> DecoderOutput:
        """States `[B, m, D']` behind the codes of beams."""
        return self.transformer(self._inputs(tokens), positions, mask, cache)

    def logits(self, hidden: jax.Array, level: int | None = None) -> jax.Array:
        """float32 logits of the codes of one level `[..., W]`, or of all `[..., sum of W]`."""
        table = self.head
        if level is not None:
            first = level_offsets(self.codebook_sizes)[level]
            table = table[first : first + self.codebook_sizes[level]]
        return product(hidden, table.astype(hidden.dtype).T, result="float32")

    def _inputs(self, tokens: jax.Array) -> jax.Array:
        width = jnp.asarray(self.config.d_model**0.5, self.config.dtype)
        return jnp.take(self.embedding, tokens, axis=0).astype(self.config.dtype) * width


class ItemHistoryNetwork(nn.Module):
    """What is trained: items to vectors, histories to states, states to codes.

    Attributes:
      config: sizes.
      codebook_sizes: W of each level.
      num_items: N.
      feature_dim: F.
      attention: the kernel of the long Transformer.
    """

    config: ItemHistoryConfig
    codebook_sizes: tuple[int, ...]
    num_items: int
    feature_dim: int
    attention: AttentionFunction = EinsumAttention()

    def setup(self) -> None:
        c = self.config
        self.items = ItemEmbedding(c, self.codebook_sizes, self.num_items, self.feature_dim)
        self.transformer = Transformer(c.transformer, self.attention)
        self.depth = DepthDecoder(c.depth, self.codebook_sizes)
        self.query = _query(c)
        self.dropout = nn.Dropout(c.transformer.dropout_rate)

    def vectors(self, items: Items, deterministic: bool = True) -> jax.Array:
        """`[..., D]`: how an item is read, and what a state is compared with."""
        return self.items(items, deterministic)

    def states(self, items: Items, positions: jax.Array, mask: Mask, deterministic: bool = True) -> jax.Array:
        """`[B, T, D]` behind each item of the histories `[B, T]`."""
        return self._read(self.items(items, deterministic), positions, mask, deterministic)

    def _read(self, vectors: jax.Array, positions: jax.Array, mask: Mask, deterministic: bool) -> jax.Array:
        x = vectors * jnp.asarray(vectors.shape[-1] ** 0.5, vectors.dtype)
        x = nn.with_logical_constraint(x, ("batch", "length", "embed_activation"))
        x = self.dropout(x, deterministic=deterministic)
        return self.transformer(x, positions, mask, deterministic=deterministic).values

    def queries(self, states: jax.Array) -> jax.Array:
        """States to what items' vectors are multiplied with: an item that was just read is not what comes next."""
        return self.query(states)

    def depth_states(self, states: jax.Array, codes: jax.Array, deterministic: bool = True) -> jax.Array:
        """As `DepthDecoder.states`."""
        return self.depth.states(states, codes, deterministic)

    def code_logits(self, hidden: jax.Array, level: int) -> jax.Array:
        """As `DepthDecoder.logits`."""
        return self.depth.logits(hidden, level)

    def __call__(self, items: Items, positions: jax.Array, mask: Mask) -> jax.Array:
        """Touches every parameter, for initialising; the logits of the last level."""
        states = self.states(items, positions, mask)
        self.queries(states)
        hidden = self.depth_states(states, items.codes)
        return self.code_logits(hidden, len(self.codebook_sizes) - 1)


class ItemHistoryDecoder(nn.Module):
    """What searches: the trained network, with the vectors of all items in a table; its prompts are item numbers.

    It stands where a `Decoder` does in `retrieval`: its tokens are the codes of all levels.
    """

    config: ItemHistoryConfig
    codebook_sizes: tuple[int, ...]
    num_items: int
    attention: AttentionFunction = EinsumAttention()

    # Each level's codes have a softmax of their own.
    normalised_by_level: ClassVar[bool] = True

    @property
    def vocab_size(self) -> int:
        """Codes of all levels."""
        return sum(self.codebook_sizes)

    def setup(self) -> None:
        c = self.config
        shape = (self.num_items, c.transformer.d_model)
        self.table = parameter(self, "table", nn.initializers.zeros_init(), ("vocab", "embed"), shape, "float32")
        self.transformer = Transformer(c.transformer, EinsumAttention())
        self.depth = DepthDecoder(c.depth, self.codebook_sizes, self.attention)

    def states(self, items: jax.Array, lengths: jax.Array) -> jax.Array:
        """`[B, 1, D]` behind the last of `lengths` [B] items of each row of `items` [B, T]."""
        c = self.config.transformer
        places = jnp.broadcast_to(jnp.arange(items.shape[1], dtype=jnp.int32), items.shape)
        real = PackedCausal((places < lengths[:, None]).astype(jnp.int32))
        x = jnp.take(self.table, items, axis=0).astype(c.dtype) * jnp.asarray(c.d_model**0.5, c.dtype)
        states = self.transformer(x, places, real).values
        return jnp.take_along_axis(states, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)

    def read_prompts(
        self, prompts: jax.Array, lengths: jax.Array, start_token: int
    ) -> tuple[jax.Array, KVCache, jax.Array, jax.Array]:
        """As `Decoder.read_prompts`; what follows has read one position, the state."""
        del start_token
        output = self.depth.begin(self.states(prompts, lengths))
        assert output.cache is not None
        batch = len(prompts)
        return output.values, output.cache, jnp.ones((batch, 1, 1), bool), jnp.zeros(batch, jnp.int32)

    def hidden(self, tokens: jax.Array, positions: jax.Array, mask: Mask, cache: KVCache) -> DecoderOutput:
        """States behind the codes of beams."""
        return self.depth.hidden(tokens, positions, mask, cache)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """float32 logits of the codes of all levels."""
        return self.depth.logits(hidden)


def _query(config: ItemHistoryConfig) -> nn.Dense:
    c = config.transformer
    return nn.Dense(c.d_model, use_bias=False, param_dtype=jnp.dtype(c.param_dtype))


def search_params(params: Any, table: Any) -> dict[str, Any]:
    """Parameters of an `ItemHistoryDecoder`: those of a trained network, and the vectors [N, D] of all items."""
    return {"table": table, "transformer": params["transformer"], "depth": params["depth"]}


def level_offsets(codebook_sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Token of code 0 at each level."""
    return (0, *itertools.accumulate(codebook_sizes[:-1]))
