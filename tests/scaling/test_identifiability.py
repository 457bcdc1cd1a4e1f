"""Gates: fits that look like results and are none."""

import numpy as np
import polars as pl
import pytest
from scipy import optimize

from plum_jax.scaling import identifiability, parametric_law
from plum_jax.scaling.identifiability import NotIdentified

HOFFMANN = np.array([6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083])
STARTS = parametric_law.chinchilla_starts()[1113::90]


def mean_huber(theta: np.ndarray, N: np.ndarray, D: np.ndarray, loss: np.ndarray) -> float:
    residual = parametric_law.log_loss(theta, N, D) - np.log(loss)
    clipped = np.clip(residual, -1e-3, 1e-3)
    return float((clipped * (residual - 0.5 * clipped)).mean())


def test_mean_reduction_with_default_tolerances_is_caught(chinchilla):
    """T12: SciPy returns Hoffmann's vector, which was its start."""
    trap = optimize.minimize(mean_huber, HOFFMANN, args=chinchilla, method="L-BFGS-B")
    fit = parametric_law.parametric_fit(trap.x, *chinchilla, objective=trap.fun, method="huber")
    assert pytest.approx(406.4, abs=0.1) == fit.A and fit.beta == pytest.approx(0.2849, abs=5e-4)
    found = identifiability.examine(*chinchilla, fit, starts=HOFFMANN, profiles=())
    assert found.is_start and found.still_to_gain > 0.01
    assert isinstance(found.value("alpha"), NotIdentified)
    assert "stopped at its start" in str(found.value("alpha"))


def test_the_true_optimum_of_the_240_points_passes(chinchilla):
    fit = parametric_law.fit_parametric(*chinchilla, starts=STARTS)
    found = identifiability.examine(*chinchilla, fit, starts=STARTS, profiles=("E", "alpha"))
    assert found.reasons == () and found.still_to_gain < 1e-9 and not found.is_start
    assert found.value("alpha") == fit.alpha and found.value("a") == fit.exponent_a
    for profile, width in ((found.profiles["E"], 0.1), (found.profiles["alpha"], 0.06)):
        assert profile.low < getattr(fit, profile.parameter) < profile.high
        assert width / 3 < profile.high - profile.low < width * 1.5  # about the published 95% intervals
    assert found.profiles["E"].objective.min() >= fit.objective * (1 - 1e-6)


def test_irreducible_loss_of_a_narrow_grid_is_not_identified():
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 3e7, 5), np.geomspace(1e9, 3e9, 5)))
    loss = (1.7 + 400.0 * N**-0.34 + 900.0 * D**-0.30) * np.exp(np.random.default_rng(0).normal(0.0, 0.005, 25))
    fit = parametric_law.fit_parametric(N, D, loss, starts=STARTS)
    found = identifiability.examine(N, D, loss, fit, starts=STARTS, profiles=("E",))
    assert isinstance(found.value("E"), NotIdentified)
    assert "not identified" in str(found.value("E"))


def test_small_delta_reaches_below_the_published_point_of_gemstones(shared_data):
    """T13: slim set, delta 1e-4: published objective 1.3398e-5, optimum 1.3036e-5."""
    table = pl.read_csv(shared_data / "scaling" / "gemstones_slim_chinchilla.csv")
    columns = [table[name].to_numpy() for name in ("params_active_precise", "tokens", "final_loss")]
    fit = parametric_law.fit_parametric(*columns, delta=1e-4, starts=parametric_law.chinchilla_starts()[::5])
    assert fit.objective <= 1.30365e-5  # 1.3036e-5 when rounded
    published = np.array([5.0154675479, 9.9100065846, 0.5670625496, 0.2764406077, 0.4738182992])
    law = parametric_law.parametric_fit(published, *columns, objective=1.33978e-05, method="huber")
    found = identifiability.examine(*columns, law, starts=STARTS, delta=1e-4, profiles=())
    assert found.still_to_gain > 0.005 and not found.is_start
    assert "stopped early" in str(found.value("beta"))
