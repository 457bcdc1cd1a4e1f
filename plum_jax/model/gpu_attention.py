"""Attention by cuDNN's fused kernel on NVIDIA GPUs: no [B, N, T, S] weights in memory."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from plum_jax.model.attention import DenseMasks, EinsumAttention, Pieces, joined, mask_of_layer
from plum_jax.model.config import DecoderConfig
from plum_jax.model.masks import Mask


@dataclasses.dataclass(frozen=True)
class FusedAttention:
    """`jax.nn.dot_product_attention`, which knows groups of heads and masks of booleans.

    cuDNN takes 16-bit numbers, and no soft cap of scores: for others the products of `EinsumAttention` are formed.

    Attributes:
      implementation: "cudnn"; "xla" is the same call on any machine, for tests.
    """

    implementation: Literal["cudnn", "xla"] = "cudnn"

    def prepare(self, mask: Mask, positions: jax.Array, key_positions: jax.Array, config: DecoderConfig) -> DenseMasks:
        return EinsumAttention().prepare(mask, positions, key_positions, config)

    def __call__(
        self,
        query: jax.Array,
        keys: Pieces,
        values: Pieces,
        prepared: DenseMasks,
        is_local: bool | jax.Array,
        config: DecoderConfig,
    ) -> jax.Array:
        halves = query.dtype in (jnp.bfloat16, jnp.float16)
        if config.attention_softcap is not None or (self.implementation == "cudnn" and not halves):
            return EinsumAttention()(query, keys, values, prepared, is_local, config)
        batch, length, kv_heads, groups, width = query.shape
        attended = jax.nn.dot_product_attention(
            query.reshape(batch, length, kv_heads * groups, width),
            joined(keys),
            joined(values),
            mask=mask_of_layer(prepared, is_local)[:, None],
            scale=1.0,  # the layer has scaled the queries
            implementation=self.implementation,
        )
        return attended.reshape(query.shape)
