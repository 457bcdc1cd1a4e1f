"""Losses of one prediction p against one target y, with their derivative by p and a bound of the second one."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp


class Loss(Protocol):
    """`smoothness`: the greatest second derivative by p."""

    @property
    def smoothness(self) -> float: ...

    def value(self, prediction: jax.Array, target: jax.Array) -> jax.Array: ...

    def derivative(self, prediction: jax.Array, target: jax.Array) -> jax.Array: ...


@dataclasses.dataclass(frozen=True)
class Logistic:
    """log(1 + exp(p)) - y p, for y from 0 to 1."""

    smoothness: float = dataclasses.field(default=0.25, init=False)

    def value(self, prediction: jax.Array, target: jax.Array) -> jax.Array:
        return jax.nn.softplus(prediction) - target * prediction

    def derivative(self, prediction: jax.Array, target: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(prediction) - target


@dataclasses.dataclass(frozen=True)
class Squared:
    """(p - y)^2 / 2."""

    smoothness: float = dataclasses.field(default=1.0, init=False)

    def value(self, prediction: jax.Array, target: jax.Array) -> jax.Array:
        return 0.5 * jnp.square(prediction - target)

    def derivative(self, prediction: jax.Array, target: jax.Array) -> jax.Array:
        return prediction - target
