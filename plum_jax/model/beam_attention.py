"""Attention of a token of each beam, over the prompt that a user's beams share and over its own ancestors."""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from plum_jax.model.attention import Pieces
from plum_jax.model.config import DecoderConfig
from plum_jax.model.masks import BeamMasks, within_window
from plum_jax.model.projections import soft_capped

_LOWEST = jnp.finfo(jnp.float32).min


@flax.struct.dataclass
class _Prepared:
    """Which of the prompt's tokens are seen by layers that see everything and by those with a window (None where no
    layer is such), and the ancestors.
    """

    everything: jax.Array | None
    window: jax.Array | None
    ancestors: jax.Array


@dataclasses.dataclass(frozen=True)
class BeamAttention:
    """One softmax over the prompt's piece of the cache and one key of every further piece; needs `BeamMasks`.

    The beams of a user, and the heads of a group, are the rows of one product with the prompt's keys, which are read
    where they lie. Those of all beams since are few: their products are formed too, and each beam takes its own.
    """

    def prepare(
        self, mask: BeamMasks, positions: jax.Array, key_positions: jax.Array, config: DecoderConfig
    ) -> _Prepared:
        kinds = set(config.local_layers)
        near = None
        if True in kinds:
            places = key_positions[:, : mask.prompt.shape[2]]
            near = mask.prompt & within_window(positions, places, config.window)
        return _Prepared(mask.prompt if False in kinds else None, near, mask.ancestors)

    def __call__(
        self,
        query: jax.Array,
        keys: Pieces,
        values: Pieces,
        prepared: _Prepared,
        is_local: bool | jax.Array,
        config: DecoderConfig,
    ) -> jax.Array:
        batch, length, kv_heads, groups, width = query.shape
        rows = query.transpose(0, 2, 3, 1, 4).reshape(batch, kv_heads, groups * length, width)

        def by_group(x: jax.Array) -> jax.Array:
            return x.reshape(batch, kv_heads, groups, length, -1)

        scores = by_group(_product(rows, _heads_first(keys[0]), 3))
        scores = soft_capped(scores, config.attention_softcap)
        scores = jnp.where(_of_layer(prepared, is_local)[:, None, None], scores, _LOWEST)
        highest = jnp.max(scores, axis=-1, keepdims=True)
        if len(keys) > 1:
            of_all = by_group(_product(rows, _heads_first(_side_by_side(keys[1:])), 3))
            own = _own_scores(of_all, prepared.ancestors, is_local, config)
            highest = jnp.maximum(highest, jnp.max(own, axis=-1, keepdims=True))
        weights = jnp.exp(scores - highest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        attended = _weighted(weights, values[0])
        if len(keys) > 1:
            weights = jnp.exp(own - highest)
            total += jnp.sum(weights, axis=-1, keepdims=True)
            beams = jnp.arange(of_all.shape[-1] // own.shape[-1])
            is_own = (prepared.ancestors[..., None] == beams)[:, None, None]
            spread = jnp.where(is_own, weights[..., None], 0.0).reshape(of_all.shape)
            attended += _weighted(spread, _side_by_side(values[1:]))
        return (attended / total).astype(query.dtype).transpose(0, 3, 1, 2, 4)


def _of_layer(prepared: _Prepared, is_local: bool | jax.Array) -> jax.Array:
    """bool `[B, T or 1, S]`: what of the prompt is seen."""
    if prepared.everything is None or prepared.window is None:
        (mask,) = (m for m in (prepared.everything, prepared.window) if m is not None)
        return mask
    return jnp.where(is_local, prepared.window, prepared.everything)


def _own_scores(
    of_all: jax.Array, ancestors: jax.Array, is_local: bool | jax.Array, config: DecoderConfig
) -> jax.Array:
    """`[B, K, G, T, l]`: of scores `[B, K, G, T, l * m]` those of each token's `ancestors` [B, T, l]."""
    levels = ancestors.shape[2]
    slots = ancestors + jnp.arange(levels) * (of_all.shape[-1] // levels)
    shape = (*of_all.shape[:-1], levels)
    own = jnp.take_along_axis(of_all, jnp.broadcast_to(slots[:, None, None], shape), axis=-1)
    own = soft_capped(own, config.attention_softcap)
    if not config.window:
        return own
    # The last piece is the tokens' own, the one before one position back.
    far = jnp.arange(levels)[::-1] >= config.window
    return jnp.where(far & is_local, _LOWEST, own)


def _side_by_side(pieces: Pieces) -> jax.Array:
    """`[B, l * m, K, H]`, each piece filled up to the longest."""
    most = max(piece.shape[1] for piece in pieces)
    filled = [jnp.pad(piece, ((0, 0), (0, most - piece.shape[1]), (0, 0), (0, 0))) for piece in pieces]
    return jnp.concatenate(filled, axis=1)


def _weighted(weights: jax.Array, values: jax.Array) -> jax.Array:
    """float32 `[B, K, G, T, H]` of weights `[B, K, G, T, S]` and values `[B, S, K, H]`."""
    rows = weights.reshape(*weights.shape[:2], -1, weights.shape[-1]).astype(values.dtype)
    return _product(rows, _heads_first(values), 2).reshape(*weights.shape[:-1], -1)


def _heads_first(x: jax.Array) -> jax.Array:
    """`[B, K, S, H]`. The same for all calls that read the prompt, so the compiler makes it once."""
    return x.transpose(0, 2, 1, 3)


def _product(rows: jax.Array, piece: jax.Array, contracted: int) -> jax.Array:
    """float32 `[B, K, m, n]` of `[B, K, m, k]` and axis `contracted` of a piece."""
    return lax.dot_general(rows, piece, (((3,), (contracted,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32)
