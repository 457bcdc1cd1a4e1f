"""A small Transformer that writes an item's Semantic ID, level by level, from the state of one position."""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.cache import KVCache
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import DecoderOutput, Transformer
from plum_jax.model.masks import Mask
from plum_jax.model.projections import parameter, product


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


def level_offsets(codebook_sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Token of code 0 at each level."""
    return (0, *itertools.accumulate(codebook_sizes[:-1]))
