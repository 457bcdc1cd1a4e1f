"""Attention masks: `[B, T, S]` booleans, True where a query may look at a key."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def packed_causal_mask(segment_ids: jax.Array) -> jax.Array:
    """Mask of packed training rows: a token sees itself and what came before it in its own segment.

    Args:
      segment_ids: `[B, T]` int32, 0 at padding. Padding sees padding only, so that no row of a softmax is empty.

    Returns:
      `[B, T, T]` bool.
    """
    length = segment_ids.shape[1]
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    return same & jnp.tril(jnp.ones((1, length, length), dtype=bool))


def prompt_mask(lengths: jax.Array, length: int) -> jax.Array:
    """Causal mask `[B, T, T]` of right-padded prompts of `lengths` [B] real tokens; padding also sees itself."""
    slots = jnp.arange(length)
    real = slots[None, :] < lengths[:, None]
    causal = slots[:, None] >= slots[None, :]
    return (causal[None] & real[:, None, :]) | jnp.eye(length, dtype=bool)[None]
