"""Rotary positions (RoPE, arXiv 2104.09864): queries and keys turned by angles that grow with their positions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.model.config import DecoderConfig, LinearRope, Llama3Rope

Rotary = tuple[jax.Array, jax.Array]


def rotary_tables(positions: jax.Array, config: DecoderConfig, *, local: bool = False) -> Rotary:
    """Cosines and sines `[B, T, 1, H/2]` (float32); computed once for all layers.

    Args:
      positions: `[B, T]` int32.
      config: gives base, scaling and H.
      local: those of layers with a window.
    """
    angles = positions[:, :, None].astype(jnp.float32) * jnp.asarray(rotary_frequencies(config, local=local))
    return jnp.cos(angles)[:, :, None, :], jnp.sin(angles)[:, :, None, :]


def rotate(x: jax.Array, rotary: Rotary) -> jax.Array:
    """Turns `x` [B, T, heads, H] by its positions; the halves of H are the pairs (Llama's "rotate half" layout)."""
    cosine, sine = rotary
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)


def rotary_frequencies(config: DecoderConfig, *, local: bool = False) -> np.ndarray:
    """Radians a position, float32 [H/2]; `local`: of layers with a window."""
    own_theta = local and config.local_rope_theta is not None
    theta = config.local_rope_theta if own_theta else config.rope_theta
    frequencies = float(theta or 0.0) ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
    if not own_theta:
        match config.rope_scaling:
            case LinearRope(factor=factor):
                frequencies = frequencies / factor
            case Llama3Rope() as scaling:
                frequencies = _llama3(frequencies, scaling)
    return frequencies.astype(np.float32)


def _llama3(frequencies: np.ndarray, scaling: Llama3Rope) -> np.ndarray:
    turns = scaling.original_length * frequencies / (2 * math.pi)  # of each pair over the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies
