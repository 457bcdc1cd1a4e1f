"""The layers of the decoder. Projections that read the same input are one matrix product."""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from plum_jax.model.config import DecoderConfig


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


def _out_init(config: DecoderConfig) -> nn.initializers.Initializer:
    # Each of the 2 x layers residual branches adds 1 / (2 x layers) of the stream's variance at the start (GPT-2 §2.3).
    return nn.initializers.variance_scaling(1.0 / (2 * config.num_layers), "fan_in", "truncated_normal")


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis, in float32 (arXiv 1910.07467)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.with_logical_partitioning(nn.initializers.ones_init(), ("norm",))
        scale = self.param("scale", init, (x.shape[-1],), jnp.dtype(self.config.param_dtype))
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
        qkv_init = nn.with_logical_partitioning(
            nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2, 3)),
            ("embed", "kv_heads", "qkv", "head"),
        )
        qkv = self.param("qkv", qkv_init, (c.d_model, c.num_kv_heads, groups + 2, c.head_dim), jnp.dtype(c.param_dtype))
        out_init = nn.with_logical_partitioning(
            nn.initializers.variance_scaling(
                1.0 / (2 * c.num_layers), "fan_in", "truncated_normal", in_axis=(0, 1, 2), out_axis=3
            ),
            ("kv_heads", "groups", "head", "embed"),
        )
        out = self.param("out", out_init, (c.num_kv_heads, groups, c.head_dim, c.d_model), jnp.dtype(c.param_dtype))

        projected = jnp.einsum("BTD,DKGH->BTKGH", x, qkv.astype(dtype))
        batch, length = x.shape[:2]
        query = rotate(
            projected[:, :, :, :groups].reshape(batch, length, c.num_heads, c.head_dim) * c.head_dim**-0.5, rotary
        ).reshape(batch, length, c.num_kv_heads, groups, c.head_dim)
        key = rotate(projected[:, :, :, groups], rotary)
        value = projected[:, :, :, groups + 1]
        if cache is not None:
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
        gate_up_init = nn.with_logical_partitioning(
            nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2)),
            ("embed", "gate_up", "mlp"),
        )
        gate_up = self.param("gate_up", gate_up_init, (c.d_model, 2, c.mlp_dim), jnp.dtype(c.param_dtype))
        down_init = nn.with_logical_partitioning(_out_init(c), ("mlp", "embed"))
        down = self.param("down", down_init, (c.mlp_dim, c.d_model), jnp.dtype(c.param_dtype))
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
