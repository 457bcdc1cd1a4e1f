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
class BeamMasks:
    """The mask of tokens of beams, over the pieces of a cache: the first is the prompt, each further one a level's.

    Attributes:
      prompt: bool `[B, T, S]`, or `[B, 1, S]` where all beams see the same of it.
      ancestors: int32 `[B, T, l]`: the only key that a token sees of each further piece, the last its own. A level's
        tokens lie one position behind the one before.
    """

    prompt: jax.Array
    ancestors: jax.Array


Mask = jax.Array | PackedCausal | BeamMasks


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
