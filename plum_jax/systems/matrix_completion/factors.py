"""Frank-Wolfe on a sparse matrix and factors: each step adds one pair of singular vectors, nothing dense is made."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.frank_wolfe.nuclear_ball import Product, leading_pair


class Factors(NamedTuple):
    """W = users @ items.T after some steps.

    Attributes:
      users: float32 [U, steps].
      items: float32 [N, steps].
      gaps: float32 [steps], the Frank-Wolfe gap before each, over the objective of W = 0.
    """

    users: np.ndarray
    items: np.ndarray
    gaps: np.ndarray


class _State(NamedTuple):
    weights: jax.Array  # [T], of the pairs
    left: jax.Array  # [T, U]
    right: jax.Array  # [T, N]
    observed: jax.Array  # [E], W at the observed pairs
    square: jax.Array  # ||W||_F^2
    gap: jax.Array  # of the last W that was looked at
    gaps: jax.Array  # [T]
    step: jax.Array


def first_singular_value(user: np.ndarray, item: np.ndarray, shape: tuple[int, int]) -> float:
    """Of the matrix with a one at each of these pairs."""
    ones = jnp.ones(len(user), jnp.float32)
    return float(_first(jnp.asarray(user), jnp.asarray(item), ones, shape))


@functools.partial(jax.jit, static_argnames="shape")
def _first(user: jax.Array, item: jax.Array, ones: jax.Array, shape: tuple[int, int]) -> jax.Array:
    forward, backward = _products(user, item, ones, shape)
    return leading_pair(forward, backward, shape[1], 100)[1]


def complete(
    user: np.ndarray,
    item: np.ndarray,
    shape: tuple[int, int],
    *,
    radius: float,
    weight: float,
    steps: int,
    tolerance: float,
    iterations: int,
) -> Factors:
    """min 1/2 sum_seen weight (1 - W)^2 + 1/2 sum_others W^2 over matrices [U, N] of nuclear norm at most `radius`.

    Each step takes the first singular pair of the gradient, which is W plus a sparse matrix, by products alone, and the
    best step size in closed form, the objective being quadratic.

    Args:
      user, item: int [E], the observed pairs, each once.
      shape: (U, N).
      radius: of the nuclear norm.
      weight: of an observed pair beside another one.
      steps: at most; also the rank at most.
      tolerance: of the gap, over the objective of W = 0, at which it stops.
      iterations: of the power method in a step, begun at the last step's vector.
    """
    pairs = jnp.asarray(user), jnp.asarray(item)
    scalars = jnp.float32(radius), jnp.float32(weight), jnp.float32(tolerance)
    end = _complete(*pairs, *scalars, shape, steps, iterations)
    made = int(end.step)
    users = np.asarray(end.left[:made]).T * np.asarray(end.weights[:made])
    return Factors(users, np.asarray(end.right[:made]).T, np.asarray(end.gaps[:made]))


@functools.partial(jax.jit, static_argnames=("shape", "steps", "iterations"))
def _complete(
    user: jax.Array,
    item: jax.Array,
    radius: jax.Array,
    weight: jax.Array,
    tolerance: jax.Array,
    shape: tuple[int, int],
    steps: int,
    iterations: int,
) -> _State:
    pairs = user.shape[0]
    at_zero = 0.5 * weight * pairs  # the objective of W = 0

    def unfinished(state: _State) -> jax.Array:
        return (state.step < steps) & (state.gap > tolerance * at_zero)

    def step(state: _State) -> _State:
        # The gradient is W but for the observed pairs, where it is weight (W - 1).
        slopes = weight * (state.observed - 1.0)
        sparse_forward, sparse_backward = _products(user, item, slopes - state.observed, shape)

        def forward(v: jax.Array) -> jax.Array:
            return (state.weights * (state.right @ v)) @ state.left + sparse_forward(v)

        def backward(u: jax.Array) -> jax.Array:
            return (state.weights * (state.left @ u)) @ state.right + sparse_backward(u)

        before = state.right[jnp.maximum(state.step - 1, 0)]
        random = jax.random.normal(jax.random.key(0), (shape[1],))
        start = before + random / jnp.linalg.norm(random)  # never orthogonal to what has become the first pair
        left, value, right = leading_pair(forward, backward, shape[1], iterations, start)
        # S = -radius u v'. Inner products of W, S and the gradient, from values at the observed pairs and from factors.
        with_w = state.square + jnp.vdot(slopes - state.observed, state.observed)
        gap = with_w + radius * value
        w_s = -radius * jnp.vdot(state.weights * (state.right @ right), state.left @ left)
        vertex = -radius * left[user] * right[item]
        change = vertex - state.observed
        curvature = state.square - 2.0 * w_s + radius**2 + (weight - 1.0) * jnp.vdot(change, change)
        size = jnp.clip(gap / curvature, 0.0, 1.0)
        return _State(
            weights=((1.0 - size) * state.weights).at[state.step].set(-size * radius),
            left=state.left.at[state.step].set(left),
            right=state.right.at[state.step].set(right),
            observed=state.observed + size * change,
            square=(1.0 - size) ** 2 * state.square + 2.0 * (1.0 - size) * size * w_s + (size * radius) ** 2,
            gap=gap,
            gaps=state.gaps.at[state.step].set(gap / at_zero),
            step=state.step + 1,
        )

    return jax.lax.while_loop(
        unfinished,
        step,
        _State(
            weights=jnp.zeros(steps),
            left=jnp.zeros((steps, shape[0])),
            right=jnp.zeros((steps, shape[1])),
            observed=jnp.zeros(pairs),
            square=jnp.float32(0),
            gap=jnp.float32(jnp.inf),
            gaps=jnp.zeros(steps),
            step=jnp.int32(0),
        ),
    )


def _products(user: jax.Array, item: jax.Array, values: jax.Array, shape: tuple[int, int]) -> tuple[Product, Product]:
    """Products of the sparse matrix with a vector [N], and of its transpose with one [U]."""

    def forward(v: jax.Array) -> jax.Array:
        return jnp.zeros(shape[0]).at[user].add(values * v[item])

    def backward(u: jax.Array) -> jax.Array:
        return jnp.zeros(shape[1]).at[item].add(values * u[user])

    return forward, backward
