"""Layers with PReLU between them."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.projections import parameter


class PRelu(nn.Module):
    """x where it is positive, else a learnt multiple of it, one for each channel.

    DIN's Dice is this with a step that moves with the batch's mean and variance; their running averages would be state
    beside the parameters, for a gain that the paper (arXiv 1706.06978, table 4) puts at .002 of AUC.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = parameter(self, "negative_scale", nn.initializers.constant(0.25), ("norm",), x.shape[-1:], "float32")
        return jnp.where(x > 0, x, slope * x)


class Perceptron(nn.Module):
    """`[B, ...]` to `[B, dims[-1]]`, PReLU and dropout behind each layer.

    Attributes:
      dims: widths.
      dropout: share of the activations of each layer that are dropped.
    """

    dims: Sequence[int]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool = True) -> jax.Array:
        for number, width in enumerate(self.dims):
            x = PRelu(name=f"activation_{number}")(nn.Dense(width, name=f"layer_{number}")(x))
            x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        return x
