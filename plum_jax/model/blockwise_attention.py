"""Attention on CPU: blocks of queries that look only at the keys before them, whose weights are computed twice."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from plum_jax.model.attention import DenseMasks, EinsumAttention, Pieces
from plum_jax.model.config import DecoderConfig
from plum_jax.model.masks import Mask, PackedCausal

# A block's scores stay in the cache, and at 512 tokens 5/8 of all scores are computed. Smaller blocks compute less in
# products that are too small.
_LARGEST_BLOCK = 128


@dataclasses.dataclass(frozen=True)
class BlockwiseAttention:
    """Packed causal rows in blocks of queries; other masks, and soft caps, go the way of `EinsumAttention`.

    The backward pass forms a block's weights again from the logarithm of their sum (FlashAttention, arXiv 2205.14135),
    and every product reads the big matrices as they lie in memory: XLA's CPU backend copies what it has to transpose.
    """

    def prepare(
        self, mask: Mask, positions: jax.Array, key_positions: jax.Array, config: DecoderConfig
    ) -> PackedCausal | DenseMasks:
        if isinstance(mask, PackedCausal) and config.attention_softcap is None:
            return mask
        return EinsumAttention().prepare(mask, positions, key_positions, config)

    def __call__(
        self,
        query: jax.Array,
        keys: Pieces,
        values: Pieces,
        prepared: PackedCausal | DenseMasks,
        is_local: bool | jax.Array,
        config: DecoderConfig,
    ) -> jax.Array:
        if isinstance(prepared, DenseMasks):
            return EinsumAttention()(query, keys, values, prepared, is_local, config)
        (key,), (value,) = keys, values  # packed rows are read in one call
        length = query.shape[1]
        span = jnp.where(is_local, config.window, length).astype(jnp.int32)
        heads_first = query.transpose(0, 2, 3, 1, 4), key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)
        return _attended(*heads_first, prepared.segment_ids, span).transpose(0, 3, 1, 2, 4)


def _blocks(length: int) -> list[tuple[int, int]]:
    """First query and the one after the last, of blocks of about the same length."""
    number = -(-length // _LARGEST_BLOCK)
    edges = [length * i // number for i in range(number + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


@jax.custom_vjp
def _attended(query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array, span: jax.Array) -> jax.Array:
    """`[B, K, G, T, H]` weighted values.

    Args:
      query: `[B, K, G, T, H]`, scaled and rotated.
      key, value: `[B, K, T, H]`.
      segments: `[B, T]` int32.
      span: int32 scalar, how many tokens a query sees at most, itself included.
    """
    return _forward(query, key, value, segments, span)[0]


def _forward(
    query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array, span: jax.Array
) -> tuple[jax.Array, tuple]:
    outputs, log_sums = [], []
    for first, after in _blocks(query.shape[3]):
        scores = _scores(query, key, segments, span, first, after)
        highest = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - highest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        block = _product(weights.astype(value.dtype), value[:, :, :after]) / total
        outputs.append(_by_group(block.astype(value.dtype), query.shape[2]))
        log_sums.append(highest + jnp.log(total))
    output = jnp.concatenate(outputs, axis=3)
    return output, (query, key, value, segments, span, output, log_sums)


def _backward(kept: tuple, gradient: jax.Array) -> tuple[jax.Array | None, ...]:
    query, key, value, segments, span, output, log_sums = kept
    groups, dtype = query.shape[2], value.dtype
    # The softmax's gradient needs sum_s weight * d weight = output . d output (FlashAttention, appendix B.2).
    inner = jnp.sum(output.astype(jnp.float32) * gradient.astype(jnp.float32), axis=-1, keepdims=True)
    blocks = _blocks(query.shape[3])
    d_query, d_key, d_value = [], [], []
    for (first, after), log_sum in zip(blocks, log_sums, strict=True):
        weights = jnp.exp(_scores(query, key, segments, span, first, after) - log_sum)
        d_output = _rows(gradient, first, after)
        d_weights = _product(d_output, _swapped(value[:, :, :after]))
        d_scores = (weights * (d_weights - _rows(inner, first, after))).astype(dtype)
        d_query.append(_by_group(_product(d_scores, key[:, :, :after]), groups))
        # The gradients of keys and values are computed transposed, `[B, K, H, S]`, so that the scores need not be.
        d_key.append(_product(_swapped(_rows(query, first, after)), d_scores))
        d_value.append(_product(_swapped(d_output), weights.astype(dtype)))
    d_keys, d_values = (_swapped(_summed(parts, blocks)).astype(dtype) for parts in (d_key, d_value))
    return jnp.concatenate(d_query, axis=3).astype(dtype), d_keys, d_values, None, None


_attended.defvjp(_forward, _backward)


def _scores(
    query: jax.Array, key: jax.Array, segments: jax.Array, span: jax.Array, first: int, after: int
) -> jax.Array:
    """float32 `[B, K, G * block, S]` of one block's queries and all keys up to its last; masked."""
    scores = _product(_rows(query, first, after), _swapped(key[:, :, :after]))
    distance = jnp.arange(first, after)[:, None] - jnp.arange(after)[None, :]
    seen = segments[:, first:after, None] == segments[:, None, :after]
    seen &= (distance >= 0) & (distance < span)
    seen = jnp.broadcast_to(seen[:, None, None], (*query.shape[:3], after - first, after)).reshape(scores.shape)
    return jnp.where(seen, scores, jnp.finfo(jnp.float32).min)


def _rows(x: jax.Array, first: int, after: int) -> jax.Array:
    """`[B, K, G, T, n]` -> `[B, K, G * block, n]`: the heads of a group read the same keys, in one product."""
    block = x[:, :, :, first:after]
    return block.reshape(*x.shape[:2], -1, x.shape[-1])


def _by_group(rows: jax.Array, groups: int) -> jax.Array:
    """`[B, K, G * block, H]` -> `[B, K, G, block, H]`."""
    return rows.reshape(*rows.shape[:2], groups, -1, rows.shape[-1])


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """float32 `[B, K, m, n]` of `[B, K, m, k]` and `[B, K, k, n]`."""
    return lax.dot_general(a, b, (((3,), (2,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32)


def _swapped(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2)


def _summed(parts: list[jax.Array], blocks: list[tuple[int, int]]) -> jax.Array:
    """The sum of `[B, K, H, S]` of growing S, missing keys counting nothing."""
    columns = []
    for number, (first, after) in enumerate(blocks):
        columns.append(functools.reduce(jnp.add, (part[..., first:after] for part in parts[number:])))
    return jnp.concatenate(columns, axis=-1)
