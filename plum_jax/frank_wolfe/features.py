"""Rows x_1..x_n of a finite sum, dense or sparse, with the four products that Frank-Wolfe takes of them."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse


class Features(Protocol):
    """A matrix [n, D], as a pytree."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def predict(self, rows: jax.Array, point: jax.Array) -> jax.Array:
        """[b]: products of these rows with `point` [D]."""

    def add(self, total: jax.Array, rows: jax.Array, coefficients: jax.Array) -> jax.Array:
        """`total` [D] with these rows added, each times its coefficient [b]."""

    def predict_all(self, point: jax.Array) -> jax.Array:
        """[n]: products of all rows with `point` [D]."""

    def combine_all(self, coefficients: jax.Array) -> jax.Array:
        """[D]: the sum of all rows, each times its coefficient [n]."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dense:
    """`matrix` [n, D]."""

    matrix: jax.Array

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape[0], self.matrix.shape[1]

    def predict(self, rows: jax.Array, point: jax.Array) -> jax.Array:
        return self.matrix[rows] @ point

    def add(self, total: jax.Array, rows: jax.Array, coefficients: jax.Array) -> jax.Array:
        return total + coefficients @ self.matrix[rows]

    def predict_all(self, point: jax.Array) -> jax.Array:
        return self.matrix @ point

    def combine_all(self, coefficients: jax.Array) -> jax.Array:
        return coefficients @ self.matrix


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SparseRows:
    """Rows with at most K entries, those with fewer filled up by zeros at column 0.

    Attributes:
      columns: int32 [n, K].
      values: [n, K].
      width: D.
    """

    columns: jax.Array
    values: jax.Array
    width: int = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        return self.columns.shape[0], self.width

    def predict(self, rows: jax.Array, point: jax.Array) -> jax.Array:
        return jnp.sum(self.values[rows] * point[self.columns[rows]], axis=1)

    def add(self, total: jax.Array, rows: jax.Array, coefficients: jax.Array) -> jax.Array:
        # Flat: XLA's scatter on CPU is half as fast where the indices have two axes.
        values = coefficients[:, None] * self.values[rows]
        return total.at[self.columns[rows].ravel()].add(values.ravel())

    def predict_all(self, point: jax.Array) -> jax.Array:
        return jnp.sum(self.values * point[self.columns], axis=1)

    def combine_all(self, coefficients: jax.Array) -> jax.Array:
        zeros = jnp.zeros(self.width, self.values.dtype)
        return zeros.at[self.columns].add(coefficients[:, None] * self.values)


def as_features(matrix: np.ndarray | scipy.sparse.sparray | scipy.sparse.spmatrix) -> Dense | SparseRows:
    """Dense arrays as `Dense`, SciPy's sparse ones as `SparseRows`; floats as wide as JAX is set to."""
    dtype = jnp.zeros(0).dtype
    if not scipy.sparse.issparse(matrix):
        return Dense(jnp.asarray(matrix, dtype))
    by_row = scipy.sparse.csr_array(matrix)
    counts = np.diff(by_row.indptr)
    longest = max(1, int(counts.max(initial=0)))
    row = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(by_row.nnz) - np.repeat(by_row.indptr[:-1], counts)
    columns = np.zeros((len(counts), longest), np.int32)
    values = np.zeros((len(counts), longest))
    columns[row, place], values[row, place] = by_row.indices, by_row.data
    return SparseRows(jnp.asarray(columns), jnp.asarray(values, dtype), by_row.shape[1])
