"""A language model that reads texts: states of their tokens, and one vector a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.bert import Bert, BertConfig
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import Mask, PackedCausal

Pooling = Literal["last", "mean"]
TrunkConfig = DecoderConfig | BertConfig


class TextEncoder(nn.Module):
    """Texts `[B, T]` to states `[B, T, D]` or vectors `[B, D]`. Its parameters are those of its trunk alone, which lie
    in `trunk_name(config)`.

    Attributes:
      config: of the trunk, and which it is.
      vocab_size: V.
      pooling: "last": a token sees what came before it, and the last one's state is the vector, as language models are
        trained; "mean": a token sees the whole text, and the vector is the mean of its states. BERT has "mean" alone.
      attention: a decoder's kernel.
    """

    config: TrunkConfig
    vocab_size: int
    pooling: Pooling = "last"
    attention: AttentionFunction = EinsumAttention()

    def setup(self) -> None:
        self.trunk: Bert | Decoder
        name = trunk_name(self.config)
        if isinstance(self.config, DecoderConfig):
            self.trunk = Decoder(self.config, self.vocab_size, self.attention, name=name)
            return
        if self.pooling != "mean":
            raise ValueError(f"tokens of BERT see the whole text: expected pooling 'mean', got {self.pooling!r}")
        self.trunk = Bert(self.config, self.vocab_size, name=name)

    def states(
        self,
        tokens: jax.Array,
        lengths: jax.Array,
        deterministic: bool = True,
        first_lengths: jax.Array | None = None,
    ) -> jax.Array:
        """`[B, T, D]` behind the final norm; those of filling mean nothing.

        Args:
          tokens: int32 `[B, T]`.
          lengths: int32 `[B]`, tokens of each row, 1 at least.
          deterministic: no dropout.
          first_lengths: int32 `[B]`, tokens of the first text where a row has two, which BERT tells apart; None: one.
        """
        if isinstance(self.trunk, Bert):
            return self.trunk(tokens, lengths, first_lengths, deterministic)
        places, mask = self._places_and_mask(tokens, lengths)
        return self.trunk.hidden(tokens, places, mask, None, deterministic).values

    def __call__(self, tokens: jax.Array, lengths: jax.Array, deterministic: bool = True) -> jax.Array:
        """`[B, D]`, one vector a text; arguments as of `states`."""
        if isinstance(self.trunk, Decoder) and self.pooling == "last":
            places, mask = self._places_and_mask(tokens, lengths)
            return self.trunk.hidden(tokens, places, mask, None, deterministic, last=lengths - 1).values[:, 0]
        states = self.states(tokens, lengths, deterministic)
        total = jnp.sum(jnp.where(_real(tokens, lengths)[..., None], states, 0), axis=1)
        return total / jnp.maximum(lengths, 1)[:, None].astype(states.dtype)

    def streams(
        self, tokens: jax.Array, lengths: jax.Array, first_lengths: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """`[B, T, D]` each, in front of the first layer and behind each, a decoder's not normalised; arguments as of
        `states`."""
        if isinstance(self.trunk, Bert):
            return self.trunk.streams(tokens, lengths, first_lengths)
        places, mask = self._places_and_mask(tokens, lengths)
        return self.trunk.streams(tokens, places, mask)

    def _places_and_mask(self, tokens: jax.Array, lengths: jax.Array) -> tuple[jax.Array, Mask]:
        """A decoder's positions int32 `[B, T]`, and what its tokens see."""
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
        real = _real(tokens, lengths)
        if self.pooling == "last":
            return places, PackedCausal(real.astype(jnp.int32))
        return places, jnp.broadcast_to(real[:, None, :], (*tokens.shape, tokens.shape[1]))


def trunk_name(config: TrunkConfig) -> str:
    """Where a `TextEncoder` has its trunk's parameters.

    Two names, for a run's first values and its dropout hang on them as its files do: runs of decoders are older than
    the other trunk, and are given again to the digit.
    """
    return "decoder" if isinstance(config, DecoderConfig) else "trunk"


def trunk_of(params: Mapping[str, Any]) -> Any:
    """The trunk's of a `TextEncoder`'s parameters."""
    (trunk,) = params.values()
    return trunk


def with_trunk(params: Mapping[str, Any], trunk: Any) -> dict[str, Any]:
    """A `TextEncoder`'s parameters with others for its trunk."""
    (name,) = params
    return {name: trunk}


def _real(tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    """bool `[B, T]`, which tokens are text."""
    return jnp.arange(tokens.shape[1]) < lengths[:, None]
