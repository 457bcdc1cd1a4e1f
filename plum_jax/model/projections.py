"""Parameters with logical axes, the norm and the gated MLP: what attention and experts are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from plum_jax.model.config import DecoderConfig, DType


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


def fan_in(
    scale: float,
    in_axis: int | tuple[int, ...],
    out_axis: int | tuple[int, ...],
    batch_axis: int | tuple[int, ...] = (),
) -> Callable[..., jax.Array]:
    """Truncated normal of variance `scale / fan-in`."""
    return nn.initializers.variance_scaling(
        scale, "fan_in", "truncated_normal", in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axis
    )


def tokens_are_rows() -> bool:
    """Whether products are to see the tokens of all sequences as one axis: where the step is traced for CPUs.

    XLA's CPU backend makes transposed copies where there are two axes (a quarter of an MLP's time at D = 128); on TPU
    the copies would come from taking them together (the tiles' layout).
    """
    device = jax.sharding.get_abstract_mesh().abstract_device  # of the mesh in force: `training.mesh.logical_axes`
    return (jax.default_backend() if device is None else device.platform) == "cpu"


def product(x: jax.Array, weight: jax.Array, contracted: int = 1, result: DType | None = None) -> jax.Array:
    """`[B, T, *contracted]` times `[*contracted, *out]`, `[B, T, *out]` in `result` (by default their type)."""
    if not tokens_are_rows():
        return jnp.tensordot(x, weight, contracted, preferred_element_type=result)
    inner, out = math.prod(weight.shape[:contracted]), weight.shape[contracted:]
    rows = jnp.matmul(x.reshape(-1, inner), weight.reshape(inner, -1), preferred_element_type=result)
    return rows.reshape(*x.shape[: x.ndim - contracted], *out)


def soft_capped(x: jax.Array, cap: float | None) -> jax.Array:
    """`cap * tanh(x / cap)` (Gemma 2, arXiv 2408.00118 section 2); None: `x` itself."""
    return x if cap is None else cap * jnp.tanh(x / cap)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis, in float32 (arXiv 1910.07467)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        ones = nn.initializers.ones_init()
        scale = parameter(self, "scale", ones, ("norm",), (x.shape[-1],), self.config.param_dtype)
        return normalised(x, scale, self.config)


def normalised(x: jax.Array, scale: jax.Array, config: DecoderConfig) -> jax.Array:
    """`x` over its root mean square along the last axis, times `scale`; in `config.dtype`."""
    x32 = x.astype(jnp.float32)
    inverse = lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + config.norm_epsilon)
    return (x32 * inverse * scale.astype(jnp.float32)).astype(config.dtype)


class GatedMLP(nn.Module):
    """`down(activation(gate x) * up x)` (arXiv 2002.05202); gate and up are one parameter. `[B, T, D] -> [B, T, D]`.

    Attributes:
      config: of the decoder.
      mlp_dim: F.
    """

    config: DecoderConfig
    mlp_dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        gate_up_shape = (c.d_model, 2, self.mlp_dim)
        gate_up_axes = ("embed", "gate_up", "mlp")
        gate_up = parameter(self, "gate_up", fan_in(1.0, 0, (1, 2)), gate_up_axes, gate_up_shape, c.param_dtype)
        down_shape = (self.mlp_dim, c.d_model)
        down = parameter(self, "down", fan_in(0.5 / c.num_layers, 0, 1), ("mlp", "embed"), down_shape, c.param_dtype)
        if tokens_are_rows():
            gate, up = (product(x, gate_up[:, i].astype(dtype)) for i in range(2))
        else:  # one product, one gather of its weight
            both = product(x, gate_up.astype(dtype))
            gate, up = both[:, :, 0], both[:, :, 1]
        return product(c.activation(gate) * up, down.astype(dtype))
