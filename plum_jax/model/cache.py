"""Keys and values of the tokens so far: an explicit pytree that goes in and comes out."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from plum_jax.model.config import DecoderConfig


@flax.struct.dataclass
class KVCache:
    """Keys and values of the tokens so far, for every layer.

    Attributes:
      key: `[layers, B, S, K, H]`, rotary positions already applied.
      value: `[layers, B, S, K, H]`.
      positions: `[B, S]` int32, what windows are measured by.
      index: int32 scalar, the slot that the next token is written to.
    """

    key: jax.Array
    value: jax.Array
    positions: jax.Array
    index: jax.Array

    def with_positions(self, positions: jax.Array) -> KVCache:
        """The positions `[B, T]` of the next T tokens written to their slots."""
        written = lax.dynamic_update_slice_in_dim(self.positions, positions.astype(jnp.int32), self.index, axis=1)
        return self.replace(positions=written)  # type: ignore[attr-defined]

    def with_room(self, slots: int) -> KVCache:
        """The cache with so many more free slots."""
        free = ((0, 0), (0, 0), (0, slots), (0, 0), (0, 0))
        return self.replace(  # type: ignore[attr-defined]
            key=jnp.pad(self.key, free),
            value=jnp.pad(self.value, free),
            positions=jnp.pad(self.positions, ((0, 0), (0, slots))),
        )


def empty_cache(config: DecoderConfig, batch: int, length: int) -> KVCache:
    """A cache of `length` free slots for `batch` sequences."""
    shape = (config.num_layers, batch, length, config.num_kv_heads, config.head_dim)
    zeros = jnp.zeros(shape, config.dtype)
    return KVCache(key=zeros, value=zeros, positions=jnp.zeros((batch, length), jnp.int32), index=jnp.int32(0))
