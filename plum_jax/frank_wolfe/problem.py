"""min over w in C of F(w) = (1/n) sum_i f(x_i' w, y_i): the paper's problem, and the exact figures of a point."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from plum_jax.frank_wolfe.features import Features, as_features
from plum_jax.frank_wolfe.losses import Loss
from plum_jax.frank_wolfe.nuclear_ball import leading_pair
from plum_jax.frank_wolfe.sets import ConstraintSet


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FiniteSum:
    """A problem; `finite_sum` makes one of arrays and checks them.

    Attributes:
      features: x, [n, D].
      targets: y, [n].
      loss: f.
      domain: C.
    """

    features: Features
    targets: jax.Array
    loss: Loss = dataclasses.field(metadata={"static": True})
    domain: ConstraintSet = dataclasses.field(metadata={"static": True})

    def objective(self, point: jax.Array) -> jax.Array:
        """F(point)."""
        return jnp.mean(self.loss.value(self.features.predict_all(point), self.targets))

    def gradient(self, point: jax.Array) -> jax.Array:
        """[D]: of F."""
        slopes = self.loss.derivative(self.features.predict_all(point), self.targets)
        return self.features.combine_all(slopes / slopes.shape[0])

    def gap(self, point: jax.Array) -> jax.Array:
        """max over s in C of <gradient, point - s>: F(point) is at most so far above the least F (convex f)."""
        return gap_at(self.domain, self.gradient(point), point)

    @functools.partial(jax.jit, static_argnames="iterations")
    def smoothness(self, iterations: int = 100) -> jax.Array:
        """The Lipschitz constant of F's gradient: f's smoothness times the greatest eigenvalue of X'X / n."""
        count, width = self.features.shape
        forward, backward = self.features.predict_all, self.features.combine_all
        _, largest, _ = leading_pair(forward, backward, width, iterations)
        return self.loss.smoothness * jnp.square(largest) / count


def gap_at(domain: ConstraintSet, gradient: jax.Array, point: jax.Array) -> jax.Array:
    """<gradient, point - s> for the oracle's s: the Frank-Wolfe gap of any gradient, true or estimated."""
    return jnp.vdot(gradient, point - domain.vertex(gradient))


def finite_sum(
    features: np.ndarray | scipy.sparse.sparray | scipy.sparse.spmatrix,
    targets: np.ndarray,
    loss: Loss,
    domain: ConstraintSet,
) -> FiniteSum:
    """A problem of arrays: features [n, D] (NumPy, or SciPy's sparse), targets [n].

    Raises:
      ValueError: no row, another number of targets, or a value that is not finite (its row and column).
    """
    if len(features.shape) != 2 or not all(features.shape):
        raise ValueError(f"expected features [n, D] with at least one row and column, got shape {features.shape}")
    _require_finite(features)
    targets = np.asarray(targets, np.float64)
    if targets.shape != (features.shape[0],):
        raise ValueError(f"expected {features.shape[0]} targets, one a row of features, got shape {targets.shape}")
    if not np.isfinite(targets).all():
        row = int(np.flatnonzero(~np.isfinite(targets))[0])
        raise ValueError(f"expected finite targets, got {targets[row]} in row {row}")
    return FiniteSum(as_features(features), jnp.asarray(targets, jnp.zeros(0).dtype), loss, domain)


def _require_finite(features: Any) -> None:
    """Sparse matrices are looked at where they have entries."""
    if scipy.sparse.issparse(features):
        entries = scipy.sparse.coo_array(features)
        places, values = np.stack(entries.coords, axis=1), entries.data
    else:
        places, values = None, np.asarray(features)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0] if places is None else places[bad[0][0]]
        raise ValueError(f"expected finite features, got {values[tuple(bad[0])]} in row {row}, column {column}")
