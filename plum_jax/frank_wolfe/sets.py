"""Convex sets of vectors with their linear minimisation oracles; each radius is the set's own scale.

A set is a frozen dataclass, so that gin can bind it and jit can take it as static. What all have:

    vertex(gradient): the point of the set where <gradient, point> is least (the oracle);
    violation(point): how far outside a point is, in the norm that the set bounds; 0 or less inside;
    start(like): a vertex with the shape of `like`.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

_BLOCK = 512


class ConstraintSet(Protocol):
    """A compact convex set (see the module)."""

    def vertex(self, gradient: jax.Array) -> jax.Array:
        """argmin over the set of <gradient, s>, of the gradient's shape and dtype."""

    def violation(self, point: jax.Array) -> jax.Array:
        """Scalar: how far outside `point` is."""

    def start(self, like: jax.Array) -> jax.Array:
        """A vertex with the shape and dtype of `like`."""


class Polytope(ConstraintSet, Protocol):
    """A set with so few vertices that each can have a weight: `methods.Pairwise` needs one."""

    def vertex_scores(self, gradient: jax.Array) -> jax.Array:
        """[V]: <gradient, vertex> of every vertex."""

    def vertex_at(self, index: jax.Array, like: jax.Array) -> jax.Array:
        """The vertex of this index, with the shape of `like` [D]."""

    def weights(self, point: jax.Array) -> jax.Array:
        """[V]: a convex combination of vertices that is `point` [D]."""


@dataclasses.dataclass(frozen=True)
class Simplex:
    """Nonnegative vectors [D] whose sum is `radius`."""

    radius: float = 1.0

    def __post_init__(self) -> None:
        _require_positive(self, "radius", self.radius)

    def vertex(self, gradient: jax.Array) -> jax.Array:
        """All on the least coordinate, the first where equal."""
        return self.vertex_at(first_greatest(-gradient), gradient)

    def violation(self, point: jax.Array) -> jax.Array:
        """The greater of the sum's error and the most negative coordinate."""
        return jnp.maximum(jnp.abs(jnp.sum(point) - self.radius), -jnp.min(point))

    def start(self, like: jax.Array) -> jax.Array:
        """All on the first coordinate."""
        return self.vertex_at(jnp.int32(0), like)

    def vertex_scores(self, gradient: jax.Array) -> jax.Array:
        """[D]."""
        return self.radius * gradient

    def vertex_at(self, index: jax.Array, like: jax.Array) -> jax.Array:
        """`radius` on one coordinate."""
        return _at(index, jnp.asarray(self.radius, like.dtype), like)

    def weights(self, point: jax.Array) -> jax.Array:
        """[D]."""
        return point / self.radius


@dataclasses.dataclass(frozen=True)
class L1Ball:
    """Arrays whose absolute values sum to at most `radius`."""

    radius: float

    def __post_init__(self) -> None:
        _require_positive(self, "radius", self.radius)

    def vertex(self, gradient: jax.Array) -> jax.Array:
        """-radius times the sign of the greatest absolute coordinate, the first where equal."""
        flat = gradient.ravel()
        index = first_greatest(jnp.abs(flat))
        value = jnp.where(flat[index] > 0, -self.radius, self.radius).astype(flat.dtype)
        return _at(index, value, flat).reshape(gradient.shape)

    def violation(self, point: jax.Array) -> jax.Array:
        """||point||_1 - radius."""
        return jnp.sum(jnp.abs(point)) - self.radius

    def start(self, like: jax.Array) -> jax.Array:
        """`radius` on the first coordinate."""
        return jnp.zeros_like(like).ravel().at[0].set(self.radius).reshape(like.shape)

    def vertex_scores(self, gradient: jax.Array) -> jax.Array:
        """[2 D]: the positive vertices, then the negative ones."""
        return self.radius * jnp.concatenate([gradient, -gradient])

    def vertex_at(self, index: jax.Array, like: jax.Array) -> jax.Array:
        """+-`radius` on one coordinate."""
        size = like.shape[0]
        value = jnp.where(index < size, self.radius, -self.radius).astype(like.dtype)
        return _at(index % size, value, like)

    def weights(self, point: jax.Array) -> jax.Array:
        """[2 D]: what is left to a sum of one lies on the first coordinate's two vertices, half each."""
        parts = jnp.concatenate([jnp.maximum(point, 0), jnp.maximum(-point, 0)]) / self.radius
        rest = (1 - jnp.sum(parts)) / 2
        return parts.at[0].add(rest).at[point.shape[0]].add(rest)


@dataclasses.dataclass(frozen=True)
class L2Ball:
    """Arrays whose Euclidean norm is at most `radius`."""

    radius: float

    def __post_init__(self) -> None:
        _require_positive(self, "radius", self.radius)

    def vertex(self, gradient: jax.Array) -> jax.Array:
        """Against the gradient; the first coordinate's for a gradient of zero."""
        opposite = -self.radius * unit(gradient.ravel()).reshape(gradient.shape)
        return jnp.where(jnp.any(gradient != 0), opposite, self.start(gradient))

    def violation(self, point: jax.Array) -> jax.Array:
        """||point||_2 - radius."""
        return jnp.linalg.norm(point.ravel()) - self.radius

    def start(self, like: jax.Array) -> jax.Array:
        """`radius` on the first coordinate."""
        return L1Ball(self.radius).start(like)


@dataclasses.dataclass(frozen=True)
class Box:
    """Arrays whose every coordinate is between `low` and `high`."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(
                f"Box: expected low < high, got {self.low} and {self.high}: the set would be empty or a point"
            )

    def vertex(self, gradient: jax.Array) -> jax.Array:
        """`low` where the gradient is positive, else `high`."""
        return jnp.where(gradient > 0, self.low, self.high).astype(gradient.dtype)

    def violation(self, point: jax.Array) -> jax.Array:
        """Of the coordinate that is farthest outside."""
        return jnp.maximum(jnp.max(point) - self.high, self.low - jnp.min(point))

    def start(self, like: jax.Array) -> jax.Array:
        """The lowest corner."""
        return jnp.full_like(like, self.low)


@dataclasses.dataclass(frozen=True)
class KSparsePolytope:
    """The hull of arrays with `k` coordinates of +-`radius` and zeros: ||.||_inf <= radius and ||.||_1 <= k radius."""

    k: int
    radius: float = 1.0

    def __post_init__(self) -> None:
        _require_positive(self, "k", self.k)
        _require_positive(self, "radius", self.radius)

    def vertex(self, gradient: jax.Array) -> jax.Array:
        """-radius times the signs of the `k` greatest absolute coordinates.

        Raises:
          ValueError: fewer than `k` coordinates.
        """
        flat = gradient.ravel()
        if self.k > flat.shape[0]:
            raise ValueError(f"KSparsePolytope: expected at least k = {self.k} coordinates, got {flat.shape[0]}")
        _, places = jax.lax.top_k(jnp.abs(flat), self.k)
        values = jnp.where(flat[places] > 0, -self.radius, self.radius).astype(flat.dtype)
        return jnp.zeros_like(flat).at[places].set(values).reshape(gradient.shape)

    def violation(self, point: jax.Array) -> jax.Array:
        """Of the norm that is farther above its bound."""
        size = jnp.abs(point)
        return jnp.maximum(jnp.max(size) - self.radius, jnp.sum(size) - self.k * self.radius)

    def start(self, like: jax.Array) -> jax.Array:
        """`radius` on the first `k` coordinates."""
        return self.vertex(-jnp.arange(like.size, 0, -1, like.dtype).reshape(like.shape))


def _at(index: jax.Array, value: jax.Array, like: jax.Array) -> jax.Array:
    """`value` at one place, else 0: elementwise, so that it is never written out where it is only subtracted."""
    return jnp.where(jax.lax.iota(jnp.int32, like.shape[0]) == index, value, jnp.zeros((), like.dtype))


def first_greatest(values: jax.Array) -> jax.Array:
    """argmax of [D], by blocks: their maxima are found by vector instructions, which XLA's argmax on CPU is not."""
    size = values.shape[0]
    if size <= 2 * _BLOCK:
        return jnp.argmax(values)
    blocks = jnp.pad(values, (0, -size % _BLOCK), constant_values=-jnp.inf).reshape(-1, _BLOCK)
    block = jnp.argmax(jnp.max(blocks, axis=1))
    return block * _BLOCK + jnp.argmax(blocks[block])


def _require_positive(domain: object, name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(
            f"{type(domain).__name__}: expected {name} > 0, got {value}: the set would be empty or a point"
        )


def unit(vector: jax.Array) -> jax.Array:
    """A vector [N] at length one, or zero as it was; scaled first, for squares of numbers below 1e-19 are zero in
    float32.
    """
    scaled = vector / jnp.maximum(jnp.max(jnp.abs(vector)), jnp.finfo(vector.dtype).tiny)
    return scaled / jnp.maximum(jnp.linalg.norm(scaled), 1.0)
