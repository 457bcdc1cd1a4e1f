"""Attention masks: `[B, T, S]` booleans, True where a query may look at a key, or what they follow from."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class PackedCausal:
    """The mask of packed training rows: a token sees itself and what came before it in its own segment.

    Kernels that never form a mask read the segments; the others form it (`dense`).

    Attributes:
      segment_ids: `[B, T]` int32, 0 at padding. Padding sees padding only, so that no row of a softmax is empty.
    """

    segment_ids: jax.Array

    def dense(self) -> jax.Array:
        """`[B, T, T]` bool."""
        length = self.segment_ids.shape[1]
        same = self.segment_ids[:, :, None] == self.segment_ids[:, None, :]
        return same & jnp.tril(jnp.ones((1, length, length), dtype=bool))


@flax.struct.dataclass
class PieceMasks:
    """The mask of queries over keys that lie in pieces.

    Attributes:
      pieces: of each piece bool `[B, T, S_i]`, or `[B, 1, S_i]` where all queries see the same of it.
    """

    pieces: tuple[jax.Array, ...]


Mask = jax.Array | PackedCausal | PieceMasks


def packed_causal_mask(segment_ids: jax.Array) -> jax.Array:
    """`PackedCausal(segment_ids)` as `[B, T, T]` bool."""
    return PackedCausal(segment_ids).dense()


def prompt_mask(lengths: jax.Array, length: int) -> jax.Array:
    """Causal mask `[B, T, T]` of right-padded prompts of `lengths` [B] real tokens; padding also sees itself."""
    slots = jnp.arange(length)
    real = slots[None, :] < lengths[:, None]
    causal = slots[:, None] >= slots[None, :]
    return (causal[None] & real[:, None, :]) | jnp.eye(length, dtype=bool)[None]


def within_window(query_positions: jax.Array, key_positions: jax.Array, window: int) -> jax.Array:
    """`[B, T, S]` bool: which keys are fewer than `window` positions before the query."""
    return query_positions[:, :, None] - key_positions[:, None, :] < window
