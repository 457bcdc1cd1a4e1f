"""Variable projection against the same least squares in five dimensions."""

import numpy as np
import pytest
from scipy import optimize

from plum_jax.scaling import parametric_law, variable_projection


def five_dimensions(N, D, loss, start):
    """Least squares of losses by Levenberg-Marquardt over all five parameters."""
    result = optimize.least_squares(
        lambda theta: np.exp(parametric_law.log_loss(theta, N, D)) - loss,
        start,
        method="lm",
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
        max_nfev=20_000,
    )
    return 2.0 * result.cost


def test_sum_of_squares_is_that_of_five_dimensions_on_the_240_points(chinchilla):
    """T10."""
    fit = variable_projection.fit_variable_projection(*chinchilla)
    starts = [fit.log_parameters * factor for factor in (1.0, 0.95, 1.05)] + [[6.0, 6.0, 0.5, 0.34, 0.28]]
    lowest = min(five_dimensions(*chinchilla, np.asarray(start)) for start in starts)
    assert fit.objective == pytest.approx(lowest, rel=1e-6)


def test_planted_law_is_recovered_and_sums_agree_with_noise():
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    loss = 1.7 + 400.0 * N**-0.34 + 900.0 * D**-0.30
    exact = variable_projection.fit_variable_projection(N, D, loss)
    np.testing.assert_allclose(
        [exact.E, exact.A, exact.B, exact.alpha, exact.beta], [1.7, 400, 900, 0.34, 0.30], rtol=1e-5
    )
    noisy = loss * np.exp(np.random.default_rng(0).normal(0.0, 0.005, len(N)))
    fit = variable_projection.fit_variable_projection(N, D, noisy)
    assert fit.objective == pytest.approx(five_dimensions(N, D, noisy, exact.log_parameters), rel=1e-6)


def test_coefficients_are_never_negative_and_equal_scipys():
    draw = np.random.default_rng(1)
    log_N, log_D, weight = draw.normal(size=20), draw.normal(size=20), draw.uniform(0.5, 2.0, 20)
    loss = 1.0 + 0.5 * np.exp(-0.3 * log_N) - 0.2 * np.exp(-0.4 * log_D)  # wants a negative B
    exponents = draw.uniform(0.1, 0.9, (5, 2))
    squares, coefficients = variable_projection.project(log_N, log_D, loss, weight, exponents)
    for (alpha, beta), value, found in zip(exponents, squares, coefficients, strict=True):
        columns = np.stack([np.ones(20), np.exp(-alpha * log_N), np.exp(-beta * log_D)], 1)
        expected, norm = optimize.nnls(columns * np.sqrt(weight)[:, None], loss * np.sqrt(weight))
        np.testing.assert_allclose(found, expected, atol=1e-9)
        assert value == pytest.approx(norm**2, rel=1e-8)
    assert np.any(coefficients[:, 2] == 0)
