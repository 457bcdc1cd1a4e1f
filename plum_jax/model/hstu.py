"""HSTU, hierarchical sequential transduction units (arXiv 2402.17152 §3.2): attention by SiLU instead of a softmax."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.config import DecoderConfig
from plum_jax.model.masks import PackedCausal
from plum_jax.model.projections import RMSNorm, fan_in, normalised, parameter, product

POSITIONS = 128  # relative positions that have a bias of their own; what is further shares the last
TIMES = 64  # buckets of the time between two tokens
_PER_OCTAVE = 2


class Hstu(nn.Module):
    """The stack `[B, T, D] -> [B, T, D]`: a `Transformer` with another layer, and which asks for times.

    Of the configuration it reads layers, width, heads, head width, dropout and types; there is no MLP.

    Deviations from the paper: RMSNorm where it has LayerNorm, and dropout on the branch.
    """

    config: DecoderConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, positions: jax.Array, times: jax.Array, mask: PackedCausal, *, deterministic: bool = True
    ) -> jax.Array:
        """Runs the stack.

        Args:
          x: `[B, T, D]` embeddings.
          positions: int32 `[B, T]`.
          times: int32 `[B, T]`, seconds; zeros where they are not known.
          mask: of packed rows.
        """
        c = self.config
        seen = mask.dense()
        apart = jnp.clip(positions[:, :, None] - positions[:, None, :], 0, POSITIONS - 1)
        gaps = time_buckets(times[:, :, None] - times[:, None, :])
        # How many tokens a token sees: the paper divides by the length of the sequence.
        count = jnp.sum(seen, axis=-1, dtype=jnp.float32)[:, None, :, None]
        for number in range(c.num_layers):
            layer = HstuLayer(c, name=f"layer_{number}")
            branch = layer(x, seen, apart, gaps, count)
            x = x + nn.Dropout(c.dropout_rate)(branch, deterministic=deterministic)
        return RMSNorm(c, name="final_norm")(x)


class HstuLayer(nn.Module):
    """U, V, Q, K = SiLU(W1 norm(x)); A = SiLU(Q Kᵀ + bias of position and time) / n; W2 (norm(A V) * U): eq. 1-3."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array, seen: jax.Array, apart: jax.Array, gaps: jax.Array, count: jax.Array) -> jax.Array:
        c = self.config
        shape = (c.d_model, 4, c.num_heads, c.head_dim)
        weight = parameter(self, "uvqk", fan_in(1.0, 0, (1, 2, 3)), ("embed", "qkv", "heads", "head"), shape, "float32")
        u, v, q, k = jnp.moveaxis(jax.nn.silu(product(RMSNorm(c, name="norm")(x), weight.astype(c.dtype))), 2, 0)
        scores = jnp.einsum("BTNH,BSNH->BNTS", q, k, preferred_element_type=jnp.float32)
        zeros = nn.initializers.zeros_init()
        by_place = parameter(self, "position_bias", zeros, ("norm",), (POSITIONS,), "float32")
        by_time = parameter(self, "time_bias", zeros, ("norm",), (TIMES,), "float32")
        scores = scores + (jnp.take(by_place, apart) + jnp.take(by_time, gaps))[:, None]
        weights = jnp.where(seen[:, None], jax.nn.silu(scores), 0.0) / count
        attended = jnp.einsum("BNTS,BSNH->BTNH", weights.astype(c.dtype), v)
        attended = attended.reshape(*x.shape[:2], -1)
        ones = nn.initializers.ones_init()
        scale = parameter(self, "attended_norm", ones, ("norm",), attended.shape[-1:], "float32")
        gated = normalised(attended, scale, c) * u.reshape(attended.shape)
        out_shape = (gated.shape[-1], c.d_model)
        out = parameter(self, "out", fan_in(0.5 / c.num_layers, 0, 1), ("mlp", "embed"), out_shape, "float32")
        return product(gated, out.astype(c.dtype))


def time_buckets(seconds: jax.Array) -> jax.Array:
    """int32: 0 for no time and for what is later, else half octaves of 1 + seconds (the paper's are of log / .301)."""
    apart = jnp.maximum(seconds, 0).astype(jnp.float32)
    return jnp.minimum((_PER_OCTAVE * jnp.log2(1 + apart)).astype(jnp.int32), TIMES - 1)
