"""How far a step goes, and how much of a new gradient an averaged one takes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


def open_loop(step: jax.Array) -> jax.Array:
    """2 / (t + 2), for t = 0, 1, ...: the first step goes all the way, so that the start does not matter."""
    return 2.0 / (step + 2.0)


def averaging(step: jax.Array) -> jax.Array:
    """rho = 4 / (t + 8)^(2/3) of d <- (1 - rho) d + rho g (Mokhtari et al., arXiv 1804.09554); the first is 1."""
    return 4.0 / (step + 8.0) ** (2.0 / 3.0)


@dataclasses.dataclass(frozen=True)
class OpenLoop:
    """`open_loop`."""

    def size(self, step: jax.Array, gap: jax.Array, direction: jax.Array, smoothness: jax.Array) -> jax.Array:
        """For step t = 0, 1, ..."""
        return open_loop(step)


@dataclasses.dataclass(frozen=True)
class ShortStep:
    """gap / (L ||s - w||^2), at most 1: where the bound by smoothness is least (Demyanov-Rubinov)."""

    def size(self, step: jax.Array, gap: jax.Array, direction: jax.Array, smoothness: jax.Array) -> jax.Array:
        """By the method's own estimate of the gap; 0 where the direction is."""
        curvature = smoothness * jnp.vdot(direction, direction)
        return jnp.clip(gap / jnp.maximum(curvature, jnp.finfo(direction.dtype).tiny), 0.0, 1.0)
