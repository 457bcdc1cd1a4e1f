"""The layers of the decoder. Projections that read the same input are one matrix product."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from plum_jax.model.config import DecoderConfig, DType


@flax.struct.dataclass
class KVCache:
    """Keys and values of the tokens so far, for every layer.

    Attributes:
      key: `[layers, B, S, K, H]`, rotary positions already applied.
      value: `[layers, B, S, K, H]`.
      index: int32 scalar, the slot that the next token is written to.
    """

    key: jax.Array
    value: jax.Array
    index: jax.Array


def empty_cache(config: DecoderConfig, batch: int, length: int) -> KVCache:
    """A cache of `length` free slots for `batch` sequences."""
    shape = (config.num_layers, batch, length, config.num_kv_heads, config.head_dim)
    zeros = jnp.zeros(shape, config.dtype)
    return KVCache(key=zeros, value=zeros, index=jnp.int32(0))


def rotary_tables(positions: jax.Array, config: DecoderConfig) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines `[B, T, 1, H/2]` (float32) of RoPE (arXiv 2104.09864); computed once for all layers."""
    exponents = jnp.arange(0, config.head_dim, 2, dtype=jnp.float32) / config.head_dim
    angles = positions[:, :, None].astype(jnp.float32) / (config.rope_theta**exponents)[None, None, :]
    return jnp.cos(angles)[:, :, None, :], jnp.sin(angles)[:, :, None, :]


def rotate(x: jax.Array, rotary: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns `x` [B, T, heads, H] by its positions; the halves of H are the pairs (Llama's "rotate half" layout)."""
    cosine, sine = rotary
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)


def parameter(
    module: nn.Module,
    name: str,
    init: Callable[..., jax.Array],
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    dtype: DType,
) -> jax.Array:
    """A parameter whose axes carry the logical names that `training.mesh` maps to the mesh."""
    return cast(jax.Array, module.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.dtype(dtype)))


def fan_in(scale: float, in_axis: int | tuple[int, ...], out_axis: int | tuple[int, ...]) -> Callable[..., jax.Array]:
    """Truncated normal of variance `scale / fan-in`."""
    return nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal", in_axis=in_axis, out_axis=out_axis)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis, in float32 (arXiv 1910.07467)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        ones = nn.initializers.ones_init()
        scale = parameter(self, "scale", ones, ("norm",), (x.shape[-1],), self.config.param_dtype)
        x32 = x.astype(jnp.float32)
        inverse = lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.config.norm_epsilon)
        return (x32 * inverse * scale.astype(jnp.float32)).astype(self.config.dtype)


class Attention(nn.Module):
    """Grouped-query attention. `[B, T, D] -> [B, T, D]`, and the layer's part of the cache when one is given."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        rotary: tuple[jax.Array, jax.Array],
        mask: jax.Array,
        cache: tuple[jax.Array, jax.Array] | None,
        index: jax.Array | None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
        c = self.config
        groups = c.num_heads // c.num_kv_heads
        dtype = jnp.dtype(c.dtype)
        # Queries, keys and values in one product, grouped by key-value head so that tensor parallelism splits K.
        qkv_shape = (c.d_model, c.num_kv_heads, groups + 2, c.head_dim)
        qkv_axes = ("embed", "kv_heads", "qkv", "head")
        qkv = parameter(self, "qkv", fan_in(1.0, 0, (1, 2, 3)), qkv_axes, qkv_shape, c.param_dtype)
        # Each of the 2 x layers residual branches adds 1 / (2 x layers) of the stream's variance at the start (GPT-2).
        out_shape = (c.num_kv_heads, groups, c.head_dim, c.d_model)
        out_axes = ("kv_heads", "groups", "head", "embed")
        out = parameter(self, "out", fan_in(0.5 / c.num_layers, (0, 1, 2), 3), out_axes, out_shape, c.param_dtype)

        projected = jnp.einsum("BTD,DKGH->BTKGH", x, qkv.astype(dtype))
        batch, length = x.shape[:2]
        query = rotate(
            projected[:, :, :, :groups].reshape(batch, length, c.num_heads, c.head_dim) * c.head_dim**-0.5, rotary
        ).reshape(batch, length, c.num_kv_heads, groups, c.head_dim)
        key = rotate(projected[:, :, :, groups], rotary)
        value = projected[:, :, :, groups + 1]
        if cache is not None:
            assert index is not None, "a layer's cache comes with the slot to write to"
            key = lax.dynamic_update_slice_in_dim(cache[0], key, index, axis=1)
            value = lax.dynamic_update_slice_in_dim(cache[1], value, index, axis=1)
            cache = (key, value)
        scores = jnp.einsum("BTKGH,BSKH->BKGTS", query, key, preferred_element_type=jnp.float32)
        scores = jnp.where(mask[:, None, None, :, :], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(dtype)
        attended = jnp.einsum("BKGTS,BSKH->BTKGH", weights, value)
        return jnp.einsum("BTKGH,KGHD->BTD", attended, out.astype(dtype)), cache


class GatedMLP(nn.Module):
    """`down(activation(gate x) * up x)` (arXiv 2002.05202); gate and up are one product. `[B, T, D] -> [B, T, D]`."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        gate_up_shape = (c.d_model, 2, c.mlp_dim)
        gate_up_axes = ("embed", "gate_up", "mlp")
        gate_up = parameter(self, "gate_up", fan_in(1.0, 0, (1, 2)), gate_up_axes, gate_up_shape, c.param_dtype)
        down_shape = (c.mlp_dim, c.d_model)
        down = parameter(self, "down", fan_in(0.5 / c.num_layers, 0, 1), ("mlp", "embed"), down_shape, c.param_dtype)
        both = jnp.einsum("BTD,DUF->BTUF", x, gate_up.astype(dtype))
        hidden = c.activation(both[:, :, 0]) * both[:, :, 1]
        return jnp.einsum("BTF,FD->BTD", hidden, down.astype(dtype))


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP on a residual stream. Shaped for `nn.scan`: carry in, carry and cache out."""

    config: DecoderConfig
    deterministic: bool

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        cache: tuple[jax.Array, jax.Array] | None,
        rotary: tuple[jax.Array, jax.Array],
        mask: jax.Array,
        index: jax.Array | None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
        drop = nn.Dropout(self.config.dropout_rate, deterministic=self.deterministic)
        attended, cache = Attention(self.config, name="attention")(
            RMSNorm(self.config, name="attention_norm")(x), rotary, mask, cache, index
        )
        x = nn.with_logical_constraint(x + drop(attended), ("batch", "length", "embed_activation"))
        x = x + drop(GatedMLP(self.config, name="mlp")(RMSNorm(self.config, name="mlp_norm")(x)))
        return nn.with_logical_constraint(x, ("batch", "length", "embed_activation")), cache
