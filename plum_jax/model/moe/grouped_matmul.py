"""Rows times the matrix of their own group: the product that dropless experts need."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

BLOCK = 32  # rows of one group come in multiples of this


def grouped_matmul(x: jax.Array, weights: jax.Array, group_sizes: jax.Array) -> jax.Array:
    """`[B, S, D] x [E, D, F] -> [B, S, F]`; in each batch row the first group's rows come first, then the second's.

    On TPU it is `lax.ragged_dot`. Elsewhere XLA would compute every row with every matrix, so there each block of rows
    takes a copy of its matrix into one batched product.

    Args:
      x: rows; S is a multiple of `BLOCK`; those behind the last group give anything finite.
      weights: one matrix a group.
      group_sizes: int32 `[B, E]`, multiples of `BLOCK` that sum to at most S.
    """
    return lax.platform_dependent(x, weights, group_sizes, tpu=_ragged, default=_by_blocks)


def _ragged(x: jax.Array, weights: jax.Array, group_sizes: jax.Array) -> jax.Array:
    # One batch row after the other: ragged_dot has no batching rule for matrices that are shared.
    return lax.map(lambda row: lax.ragged_dot(row[0], weights, row[1]), (x, group_sizes))


def _by_blocks(x: jax.Array, weights: jax.Array, group_sizes: jax.Array) -> jax.Array:
    batch, rows, width = x.shape
    blocks = x.reshape(batch, -1, BLOCK, width)
    first_row = jnp.arange(blocks.shape[1]) * BLOCK
    group = jnp.sum(first_row[None, :, None] >= jnp.cumsum(group_sizes, axis=1)[:, None, :], axis=-1)
    taken = jnp.take(weights, jnp.minimum(group, weights.shape[0] - 1), axis=0)
    return jnp.einsum("BsbD,BsDF->BsbF", blocks, taken).reshape(batch, rows, -1)
