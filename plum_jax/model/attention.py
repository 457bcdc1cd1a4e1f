"""How queries look at keys: the seam between the layers and the kernels that different machines need."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from plum_jax.model.config import DecoderConfig
from plum_jax.model.masks import BeamMasks, Mask, PackedCausal, within_window
from plum_jax.model.projections import soft_capped

Pieces = tuple[jax.Array, ...]


def joined(pieces: Pieces) -> jax.Array:
    """One `[B, S, K, H]`; a copy only where there are several."""
    return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces, axis=1)


class AttentionFunction(Protocol):
    """A static, hashable choice of kernel: `prepare` once a step, then a call in every layer."""

    def prepare(self, mask: Mask, positions: jax.Array, key_positions: jax.Array, config: DecoderConfig) -> Any:
        """What all layers share, a pytree.

        Args:
          mask: `[B, T, S]` bool, or the segments of packed rows, or another that the kernel knows.
          positions: `[B, T]` int32 of queries.
          key_positions: `[B, S]` int32.
          config: for windows and soft caps.
        """

    def __call__(
        self,
        query: jax.Array,
        keys: Pieces,
        values: Pieces,
        prepared: Any,
        is_local: bool | jax.Array,
        config: DecoderConfig,
    ) -> jax.Array:
        """`[B, T, K, G, H]` weighted values.

        Args:
          query: `[B, T, K, G, H]`, scaled and rotated.
          keys, values: pieces `[B, S_i, K, H]`: those of the cache, if there is one, then that of the new tokens.
          prepared: of `prepare`.
          is_local: whether this layer has the window; a bool scalar array where layers are scanned and differ.
          config: for windows and soft caps.
        """


@flax.struct.dataclass
class DenseMasks:
    """`[B, T, S]` bool of layers that see everything and of those with a window (None where no layer is such)."""

    everything: jax.Array | None
    window: jax.Array | None


@dataclasses.dataclass(frozen=True)
class EinsumAttention:
    """Attention as two products and a softmax in float32: any mask, any machine. Forms all `[B, N, T, S]` weights."""

    def prepare(self, mask: Mask, positions: jax.Array, key_positions: jax.Array, config: DecoderConfig) -> DenseMasks:
        assert not isinstance(mask, BeamMasks), "BeamAttention reads these"
        dense = mask.dense() if isinstance(mask, PackedCausal) else mask
        kinds = set(config.local_layers)
        near = dense & within_window(positions, key_positions, config.window) if True in kinds else None
        return DenseMasks(everything=dense if False in kinds else None, window=near)

    def __call__(
        self,
        query: jax.Array,
        keys: Pieces,
        values: Pieces,
        prepared: DenseMasks,
        is_local: bool | jax.Array,
        config: DecoderConfig,
    ) -> jax.Array:
        key, value = joined(keys), joined(values)
        scores = jnp.einsum("BTKGH,BSKH->BKGTS", query, key, preferred_element_type=jnp.float32)
        scores = soft_capped(scores, config.attention_softcap)
        mask = mask_of_layer(prepared, is_local)
        scores = jnp.where(mask[:, None, None, :, :], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        return jnp.einsum("BKGTS,BSKH->BTKGH", weights, value)


def mask_of_layer(masks: DenseMasks, is_local: bool | jax.Array) -> jax.Array:
    """`[B, T, S]` bool of a layer that has the window or has not."""
    if masks.everything is None or masks.window is None:
        (mask,) = (m for m in (masks.everything, masks.window) if m is not None)
        return mask
    return jnp.where(is_local, masks.window, masks.everything)
