"""The joint likelihood of Besiroglu et al. 2024, against what they published."""

import numpy as np
import pytest

from plum_jax.scaling import likelihood, parametric_law

HOFFMANN = np.array([6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083])


def test_likelihood_fit_of_the_240_points_is_the_published_one(chinchilla):
    """T2: log-likelihood 879.77; A 482.01 B 2085.43 E 1.8169 alpha .3478 beta .3658."""
    fit = likelihood.fit_likelihood(*chinchilla, starts=parametric_law.chinchilla_starts()[::25])
    assert -fit.objective == pytest.approx(879.773, abs=0.05)
    assert pytest.approx(1.81686, rel=5e-4) == fit.E
    assert fit.alpha == pytest.approx(0.34781, rel=5e-3)
    assert fit.beta == pytest.approx(0.36585, rel=5e-3)
    assert pytest.approx(482.0, rel=0.02) == fit.A
    assert pytest.approx(2085.4, rel=0.05) == fit.B


def test_likelihoods_of_hoffmanns_law_rounded_and_not(chinchilla):
    """T3."""
    assert likelihood.log_likelihood(HOFFMANN, *chinchilla) == pytest.approx(837.78, abs=0.01)
    rounded = np.array([np.log(406.4), np.log(410.7), np.log(1.69), 0.34, 0.28])
    assert likelihood.log_likelihood(rounded, *chinchilla) == pytest.approx(562.25, abs=0.01)


def test_density_integrates_to_one_and_the_scale_is_its_maximum():
    x = np.linspace(-60.0, 60.0, 400_001)
    density = np.exp(likelihood.log_density(x, 2.0, delta=0.7))
    assert np.trapezoid(density, x) == pytest.approx(1.0, abs=1e-6)
    residual = np.random.default_rng(0).normal(size=(2, 500)) * [[0.01], [3.0]]
    scale = likelihood.best_scale(residual, None, delta=0.7)
    for row, best in zip(residual, scale, strict=True):
        at = [likelihood.log_density(row, best * factor, 0.7).sum() for factor in (0.99, 1.0, 1.01)]
        assert np.argmax(at) == 1


def test_temperature_likelihood_is_the_normal_one_for_least_squares():
    residual = np.random.default_rng(0).normal(0.0, 0.02, 100)
    objective = 0.5 * (residual**2).sum()
    variance = (residual**2).mean()
    normal = (-0.5 * residual**2 / variance - 0.5 * np.log(2 * np.pi * variance)).sum()
    assert likelihood.temperature_log_likelihood(objective, 100, np.inf) == pytest.approx(normal)
    assert likelihood.temperature_log_likelihood(objective, 100, 10.0) == pytest.approx(normal, abs=1e-3)
