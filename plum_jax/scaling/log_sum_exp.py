"""Laws that are sums of power laws, as a log-sum-exp that is linear in its parameters: Huber loss, gradient, Hessian.

log L(theta) = log sum_k exp(X[k, i] . theta) with known X: Chinchilla's E + A N^-alpha + B D^-beta has the terms
(a - alpha log N), (b - beta log D), (e). Any product of powers is a term, so laws in several sizes need no code here.

Everything is float64 and laid out with the starts last ([n, S], [p, S]): starts are independent, so they fill vectors.
Letters: K terms, n rows of data, p parameters, S starts, R problems (bootstrap draws, simulated studies).
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_LARGEST_EXPONENT = 600.0  # exp of it is finite in float64


class Pattern(NamedTuple):
    """Which parameters stand in which term: static, as programs are compiled for it.

    Attributes:
      parameters: p.
      of_term: per term the indices of its parameters.
      of_pair: per pair of terms (k, l), l <= k: the entries of the lower triangle of the Hessian that it adds to.
    """

    parameters: int
    of_term: tuple[tuple[int, ...], ...]
    of_pair: tuple[tuple[int, int, tuple[int, ...]], ...]


class Columns(NamedTuple):
    """The numbers that go with a `Pattern`: [c, n] for each term, and products of columns for each pair."""

    of_term: tuple[jax.Array, ...]
    of_pair: tuple[jax.Array, ...]


class Rows(NamedTuple):
    """What is fitted, [n, S] or [n, 1] where all starts share it; delta [1, S] or [1, 1] is Huber's threshold."""

    target: jax.Array
    weight: jax.Array
    delta: jax.Array


@dataclasses.dataclass(frozen=True)
class Whitened:
    """A design in coordinates in which every parameter moves log-predictions about as much as any other.

    log N is about 20 and hardly varies, so that a and alpha are almost the same direction and the Hessian's condition
    number is 1e11. Centred and scaled, what remains is the problem's own.

    Attributes:
      design: [K, n, p] in the new coordinates.
      to_theta: [p, p]: theta = to_theta @ phi.
    """

    design: np.ndarray
    to_theta: np.ndarray

    def to_phi(self, theta: np.ndarray) -> np.ndarray:
        """Parameters [..., p] in the new coordinates."""
        return np.linalg.solve(self.to_theta, theta[..., None])[..., 0]


def whiten(design: np.ndarray) -> Whitened:
    """`design` [K, n, p] with orthonormal columns over all terms; raises where two parameters are one direction."""
    gram = np.einsum("knp,knq->pq", design, design) / design.shape[1]
    scale = np.sqrt(np.diag(gram))
    try:
        lower = np.linalg.cholesky(gram / np.outer(scale, scale))
        flat = np.min(np.diag(lower)) < 1e-7
    except np.linalg.LinAlgError:
        flat = True
    if flat:
        raise ValueError(
            "the runs cannot tell the law's parameters apart: a size or a number of tokens is the same in all of them; "
            "add runs in which it differs, or fit a law without it"
        )
    to_theta = np.linalg.inv(lower).T / scale[:, None]
    return Whitened(design=design @ to_theta, to_theta=to_theta)


def triangle(parameters: int) -> list[tuple[int, int]]:
    """(row, column) of the lower triangle, in the order in which Hessians are kept."""
    return [(i, j) for i in range(parameters) for j in range(i + 1)]


def columns(design: np.ndarray) -> tuple[Pattern, Columns]:
    """Takes zeros out of a design [K, n, p] once, on the host."""
    terms, _, parameters = design.shape
    place = {entry: index for index, entry in enumerate(triangle(parameters))}
    used = [tuple(j for j in range(parameters) if np.any(design[k, :, j])) for k in range(terms)]
    pairs, products = [], []
    for k, other in itertools.product(range(terms), range(terms)):
        if other > k:
            continue
        sums: dict[int, np.ndarray] = {}
        for i, j in itertools.product(used[k], used[other]):
            # A pair (k, l) stands for (l, k) too, so off the diagonal of terms every product counts; on it, one half.
            if k == other and j > i:
                continue
            index = place[max(i, j), min(i, j)]
            product = design[k, :, i] * design[other, :, j]
            doubled = 2.0 if k != other and i == j else 1.0
            sums[index] = sums.get(index, 0.0) + doubled * product
        pairs.append((k, other, tuple(sums)))
        products.append(jnp.asarray(np.stack(list(sums.values()))))
    of_term = tuple(jnp.asarray(np.ascontiguousarray(design[k, :, list(used[k])])) for k in range(terms))
    return Pattern(parameters, tuple(used), tuple(pairs)), Columns(of_term, tuple(products))


def log_prediction(pattern: Pattern, data: Columns, phi: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """Log-predictions [n, S] at phi [p, S], and each term's share of the prediction, K of [n, S].

    The last term is the reference of the exponentials: one exponential less, and no maximum to take.
    """
    terms = [
        sum(column[:, None] * phi[j][None, :] for column, j in zip(block, used, strict=True))
        for block, used in zip(data.of_term, pattern.of_term, strict=True)
    ]
    reference = terms[-1]
    ratios = [jnp.exp(jnp.minimum(term - reference, _LARGEST_EXPONENT)) for term in terms[:-1]]
    total = jnp.ones_like(reference)
    for ratio in ratios:
        total = total + ratio
    inverse = 1.0 / total
    return reference + jnp.log(total), [*(ratio * inverse for ratio in ratios), inverse]


def evaluate(
    pattern: Pattern, data: Columns, rows: Rows, phi: jax.Array, exact: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sum of weighted Huber losses [S] of log residuals at phi [p, S], its gradient [p, S] and Hessian [p(p+1)/2, S].

    Hoffmann et al. 2022, approach 3: a sum, not a mean. `exact` false gives in place of the Hessian the one of
    iteratively reweighted least squares, which is positive and leads far from the optimum, where most residuals are in
    the linear part of Huber's loss and the exact Hessian says nothing.
    """
    prediction, share = log_prediction(pattern, data, phi)
    residual = prediction - rows.target
    clipped = jnp.clip(residual, -rows.delta, rows.delta)
    value = (rows.weight * clipped * (residual - 0.5 * clipped)).sum(0)
    size = jnp.abs(residual)
    curvature = jnp.where(size <= rows.delta, 1.0, jnp.where(exact, 0.0, rows.delta / size))
    slope = rows.weight * clipped
    bend = jnp.where(exact, slope, 0.0)  # what the law's own curvature adds
    outer = rows.weight * curvature - bend

    gradient = [jnp.zeros_like(value)] * pattern.parameters
    for k, used in enumerate(pattern.of_term):
        sums = data.of_term[k] @ (slope * share[k])
        for row, j in enumerate(used):
            gradient[j] = gradient[j] + sums[row]
    hessian = [jnp.zeros_like(value)] * len(triangle(pattern.parameters))
    for (k, other, entries), products in zip(pattern.of_pair, data.of_pair, strict=True):
        factor = outer * share[k] * share[other]
        sums = products @ (factor + bend * share[k] if k == other else factor)
        for row, entry in enumerate(entries):
            hessian[entry] = hessian[entry] + sums[row]
    return value, jnp.stack(gradient), jnp.stack(hessian)
