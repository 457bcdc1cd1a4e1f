"""The loss law by variable projection: search two exponents, solve for the rest (VPNLS of Open-Athena, 2026).

For given (alpha, beta) the law is linear in E, A, B, and the best of them that are not negative follow in closed form.
What is left to search has two dimensions and a condition number near 10 in place of 1e11: the stable one of the fits.
It minimises squares of losses, not of logs, so that its estimates are not those of `parametric_law`.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import optimize

from plum_jax.scaling import parametric_law
from plum_jax.scaling.parametric_law import ParametricFit

_GRID = 32
_LOW, _HIGH = 0.05, 0.95  # of either exponent on the grid; the search after it may leave it
_POLISHED = 4  # lowest cells of the grid that are searched from


def fit_variable_projection(
    N: np.ndarray, D: np.ndarray, loss: np.ndarray, *, weights: np.ndarray | None = None
) -> ParametricFit:
    """Least squares of losses over E, A, B >= 0 and two exponents.

    Args:
      N, D, loss: [n].
      weights: [n], of each row's square; None is 1 each.

    Returns a fit whose `objective` is the weighted sum of squares; its E, A or B may be 0.
    """
    N, D, loss = parametric_law.checked(N=N, D=D, loss=loss)
    weight = np.ones(len(loss)) if weights is None else np.asarray(weights, float)
    # In units of the geometric means columns are near 1, whatever the exponents.
    size, tokens = np.log(N) - np.log(N).mean(), np.log(D) - np.log(D).mean()

    def squares(exponents: np.ndarray) -> float:
        return float(project(size, tokens, loss, weight, exponents)[0])

    axis = np.linspace(_LOW, _HIGH, _GRID)
    grid = np.array(list(itertools.product(axis, axis)))
    order = np.argsort(project(size, tokens, loss, weight, grid)[0])[:_POLISHED]
    options = {"xatol": 1e-10, "fatol": 1e-15, "maxiter": 2000, "maxfev": 4000}
    ends = [optimize.minimize(squares, grid[start], method="Nelder-Mead", options=options) for start in order]
    best = min(ends, key=lambda end: end.fun)
    alpha, beta = best.x
    E, A, B = project(size, tokens, loss, weight, best.x)[1]
    with np.errstate(divide="ignore"):
        logs = np.log([A, B, E]) + [alpha * np.log(N).mean(), beta * np.log(D).mean(), 0.0]
    return parametric_law.parametric_fit(
        np.array([*logs, alpha, beta]), N, D, loss, objective=float(best.fun), method="variable_projection"
    )


def project(
    log_N: np.ndarray, log_D: np.ndarray, loss: np.ndarray, weight: np.ndarray, exponents: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Least sum of squares [...] over E, A, B >= 0 at exponents [..., 2], and (E, A, B) [..., 3].

    Of three coefficients either all are positive or some are 0: each of the 7 subsets is solved, and the best whose
    solution is not negative is the constrained minimum.
    """
    exponents = np.asarray(exponents, float)
    powers = np.exp(-exponents[..., None] * np.stack([log_N, log_D]))
    columns = np.concatenate([np.ones_like(powers[..., :1, :]), powers], axis=-2)  # [..., 3, n]
    gram = np.einsum("...in,...jn,n->...ij", columns, columns, weight)
    moment = np.einsum("...in,n,n->...i", columns, loss, weight)
    squares = np.full(exponents.shape[:-1], np.inf)
    coefficients = np.zeros((*exponents.shape[:-1], 3))
    for subset in (list(s) for count in (3, 2, 1) for s in itertools.combinations(range(3), count)):
        solved = _solve(gram[..., subset, :][..., subset], moment[..., subset])
        candidate = np.zeros_like(coefficients)
        candidate[..., subset] = solved
        residual = loss - np.einsum("...i,...in->...n", candidate, columns)
        value = (weight * residual**2).sum(-1)
        better = np.all(solved >= 0, axis=-1) & (value < squares)
        squares = np.where(better, value, squares)
        coefficients = np.where(better[..., None], candidate, coefficients)
    return squares, coefficients


def _solve(gram: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """gram^-1 moment; negative, which no subset keeps, where columns are the same (an exponent near 0)."""
    singular = np.linalg.cond(gram) > 1e14
    safe = np.where(singular[..., None, None], np.eye(gram.shape[-1]), gram)
    return np.where(singular[..., None], -1.0, np.linalg.solve(safe, moment[..., None])[..., 0])
