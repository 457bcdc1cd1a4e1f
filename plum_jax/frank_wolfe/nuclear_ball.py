"""The ball of the nuclear norm: its oracle is one pair of singular vectors, found by power iteration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from plum_jax.frank_wolfe.sets import unit

Product = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class NuclearBall:
    """Matrices [M, N] whose singular values sum to at most `radius`.

    Attributes:
      radius: of the ball.
      shape: (M, N) of points that come flat ([M * N], as `problem.FiniteSum` has them); None: they come as matrices.
      iterations: of the power method; the pair's error falls by (second / first singular value) ** 2 in each.
    """

    radius: float
    shape: tuple[int, int] | None = None
    iterations: int = 30

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ValueError(f"NuclearBall: expected radius > 0, got {self.radius}: the set would be empty or a point")

    def vertex(self, gradient: jax.Array) -> jax.Array:
        """-radius u v', with the gradient's first singular vectors."""
        matrix = self._matrix(gradient)
        left, _, right = leading_pair(lambda v: matrix @ v, lambda u: u @ matrix, matrix.shape[1], self.iterations)
        return (-self.radius * jnp.outer(left, right)).astype(gradient.dtype).reshape(gradient.shape)

    def violation(self, point: jax.Array) -> jax.Array:
        """The sum of singular values less `radius`."""
        return jnp.sum(jnp.linalg.svd(self._matrix(point), compute_uv=False)) - self.radius

    def start(self, like: jax.Array) -> jax.Array:
        """`radius` in the first row and column."""
        return jnp.zeros_like(like).ravel().at[0].set(self.radius).reshape(like.shape)

    def _matrix(self, point: jax.Array) -> jax.Array:
        matrix = point if self.shape is None else point.reshape(self.shape)
        if matrix.ndim != 2:
            raise ValueError(f"NuclearBall: expected a matrix, got an array of shape {matrix.shape}: set `shape`")
        return matrix


def leading_pair(
    forward: Product, backward: Product, columns: int, iterations: int, start: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The first singular vectors of a linear map [M, N], by power iteration on its products alone.

    Args:
      forward: [N] -> [M].
      backward: [M] -> [N], its transpose.
      columns: N.
      iterations: of the power method.
      start: [N], a guess; None: a fixed random direction, which no singular vector is orthogonal to but by accident.

    Returns:
      u [M] and v [N] of length one, and the singular value: u' A v.
    """
    guess = jax.random.normal(jax.random.key(0), (columns,)) if start is None else start

    def iterate(_: int, right: jax.Array) -> jax.Array:
        return unit(backward(unit(forward(right))))

    right = jax.lax.fori_loop(0, iterations, iterate, unit(guess))
    image = forward(right)
    return unit(image), jnp.linalg.norm(image), right
