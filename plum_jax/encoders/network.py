"""A decoder that reads texts: states of their tokens, and one vector a text."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import Mask, PackedCausal

Pooling = Literal["last", "mean"]


class TextEncoder(nn.Module):
    """Texts `[B, T]` to states `[B, T, D]` or vectors `[B, D]`. Parameters of a `Decoder` lie under "decoder".

    Attributes:
      config: of the decoder.
      vocab_size: V.
      pooling: "last": a token sees what came before it, and the last one's state is the vector, as language models are
        trained; "mean": a token sees the whole text, and the vector is the mean of its states.
      attention: the kernel.
    """

    config: DecoderConfig
    vocab_size: int
    pooling: Pooling = "last"
    attention: AttentionFunction = EinsumAttention()

    def setup(self) -> None:
        self.decoder = Decoder(self.config, self.vocab_size, self.attention)

    def states(self, tokens: jax.Array, lengths: jax.Array, deterministic: bool = True) -> jax.Array:
        """`[B, T, D]` behind the final norm; those of filling mean nothing.

        Args:
          tokens: int32 `[B, T]`.
          lengths: int32 `[B]`, tokens of each text, 1 at least.
          deterministic: no dropout.
        """
        places, real = _places(tokens, lengths)
        if self.pooling == "last":
            return self.decoder.hidden(tokens, places, PackedCausal(real.astype(jnp.int32)), None, deterministic).values
        mask = jnp.broadcast_to(real[:, None, :], (*tokens.shape, tokens.shape[1]))
        return self.decoder.hidden(tokens, places, mask, None, deterministic).values

    def __call__(self, tokens: jax.Array, lengths: jax.Array, deterministic: bool = True) -> jax.Array:
        """`[B, D]`, one vector a text; arguments as of `states`."""
        places, real = _places(tokens, lengths)
        if self.pooling == "last":
            segments = PackedCausal(real.astype(jnp.int32))
            return self.decoder.hidden(tokens, places, segments, None, deterministic, last=lengths - 1).values[:, 0]
        states = self.states(tokens, lengths, deterministic)
        total = jnp.sum(jnp.where(real[..., None], states, 0), axis=1)
        return total / jnp.maximum(lengths, 1)[:, None].astype(states.dtype)

    def streams(self, tokens: jax.Array, lengths: jax.Array) -> tuple[jax.Array, ...]:
        """`[B, T, D]` each, in front of the first layer and behind each, not normalised; arguments as of `states`."""
        places, real = _places(tokens, lengths)
        mask: Mask = PackedCausal(real.astype(jnp.int32))
        if self.pooling == "mean":
            mask = jnp.broadcast_to(real[:, None, :], (*tokens.shape, tokens.shape[1]))
        return self.decoder.streams(tokens, places, mask)


def _places(tokens: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
    """int32 and bool `[B, T]`: positions, and which are text."""
    places = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    return places, places < lengths[:, None]
