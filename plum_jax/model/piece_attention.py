"""Attention of few queries over keys that lie in pieces: a token of each beam over the prompt and its ancestors."""

from __future__ import annotations

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from plum_jax.model.attention import Pieces
from plum_jax.model.config import DecoderConfig
from plum_jax.model.masks import PieceMasks, within_window
from plum_jax.model.projections import soft_capped


@flax.struct.dataclass
class _Prepared:
    """Masks of layers that see everything and of those with a window (None where no layer is such)."""

    everything: Pieces | None
    window: Pieces | None


@dataclasses.dataclass(frozen=True)
class PieceAttention:
    """One softmax over all pieces, none of which is copied or joined; needs `PieceMasks`.

    All queries of a sequence and of the heads of a group are the rows of one product with a piece, so that the beams of
    a user read the prompt's keys once.
    """

    def prepare(
        self, mask: PieceMasks, positions: jax.Array, key_positions: jax.Array, config: DecoderConfig
    ) -> _Prepared:
        kinds = set(config.local_layers)
        near = None
        if True in kinds:
            ends = np.cumsum([piece.shape[2] for piece in mask.pieces])
            split = jnp.split(key_positions, ends[:-1], axis=1)
            near = tuple(
                piece & within_window(positions, places, config.window)
                for piece, places in zip(mask.pieces, split, strict=True)
            )
        return _Prepared(everything=mask.pieces if False in kinds else None, window=near)

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
        masks = _of_layer(prepared, is_local)
        scores = [
            _masked(soft_capped(_product(rows, _heads_first(key), 3), config.attention_softcap), mask, groups)
            for key, mask in zip(keys, masks, strict=True)
        ]
        highest = functools.reduce(jnp.maximum, (jnp.max(piece, axis=-1, keepdims=True) for piece in scores))
        weights = [jnp.exp(piece - highest) for piece in scores]
        total = functools.reduce(jnp.add, (jnp.sum(piece, axis=-1, keepdims=True) for piece in weights))
        attended = functools.reduce(
            jnp.add,
            (
                _product(piece.astype(value.dtype), _heads_first(value), 2)
                for piece, value in zip(weights, values, strict=True)
            ),
        )
        by_head = (attended / total).astype(query.dtype).reshape(batch, kv_heads, groups, length, width)
        return by_head.transpose(0, 3, 1, 2, 4)


def _of_layer(prepared: _Prepared, is_local: bool | jax.Array) -> Pieces:
    if prepared.everything is None or prepared.window is None:
        (masks,) = (m for m in (prepared.everything, prepared.window) if m is not None)
        return masks
    return jax.tree.map(lambda near, all_: jnp.where(is_local, near, all_), prepared.window, prepared.everything)


def _heads_first(x: jax.Array) -> jax.Array:
    """`[B, K, S, H]`. The same for all calls that read the piece, so the compiler makes it once."""
    return x.transpose(0, 2, 1, 3)


def _product(rows: jax.Array, piece: jax.Array, contracted: int) -> jax.Array:
    """float32 `[B, K, m, n]` of `[B, K, m, k]` and axis `contracted` of a piece."""
    return lax.dot_general(rows, piece, (((3,), (contracted,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32)


def _masked(scores: jax.Array, mask: jax.Array, groups: int) -> jax.Array:
    """`scores` [B, K, G * T, S] where `mask` [B, T or 1, S] allows."""
    batch, kv_heads, rows, slots = scores.shape
    by_group = scores.reshape(batch, kv_heads, groups, rows // groups, slots)
    kept = jnp.where(mask[:, None, None], by_group, jnp.finfo(jnp.float32).min)
    return kept.reshape(scores.shape)
