"""The k best of long rows, exactly, in less time than one long sort or heap."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

_BLOCK = 64  # scores of a block: 16 to 128 cost the same on CPU within noise


def top_k(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k` of `scores` [..., n]: values and int32 places [..., k], descending, ties by place; to the bit.

    A long row is cut into blocks. The k blocks of the largest maxima hold the k best scores, so only those are sorted.
    """
    *lead, n = scores.shape
    num_blocks = -(-n // _BLOCK)
    if num_blocks < 4 * k:
        return lax.top_k(scores, k)
    low = -jnp.inf if jnp.issubdtype(scores.dtype, jnp.floating) else jnp.iinfo(scores.dtype).min
    padded = jnp.pad(scores, [(0, 0)] * len(lead) + [(0, num_blocks * _BLOCK - n)], constant_values=low)
    blocks = padded.reshape(*lead, num_blocks, _BLOCK)
    _, chosen = lax.top_k(blocks.max(axis=-1), k)
    chosen = jnp.sort(chosen, axis=-1)  # so that ties are met in the order of their places
    candidates = jnp.take_along_axis(blocks, chosen[..., None], axis=-2).reshape(*lead, k * _BLOCK)
    values, place = lax.top_k(candidates, k)
    return values, jnp.take_along_axis(chosen, place // _BLOCK, axis=-1) * _BLOCK + place % _BLOCK
