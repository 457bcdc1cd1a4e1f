"""The Chinchilla law: published fits of published points, and laws that are planted."""

import numpy as np
import polars as pl
import pytest

from plum_jax.scaling import parametric_law


@pytest.fixture(scope="module")
def chinchilla_fit(chinchilla) -> parametric_law.ParametricFit:
    return parametric_law.fit_parametric(*chinchilla)


def test_fit_of_the_240_chinchilla_points_is_the_published_refit(chinchilla_fit):
    """T1."""
    assert chinchilla_fit.objective <= 0.0010182741
    assert abs(chinchilla_fit.alpha - 0.347311) < 2e-4
    assert abs(chinchilla_fit.beta - 0.367172) < 2e-4
    assert chinchilla_fit.descents.share_at_best() > 1 / 3  # what SciPy's L-BFGS-B reaches


def test_a_law_without_noise_is_recovered():
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    loss = 1.7 + 400.0 * N**-0.34 + 900.0 * D**-0.30
    fit = parametric_law.fit_parametric(N, D, loss, starts=parametric_law.chinchilla_starts()[::150])
    np.testing.assert_allclose([fit.E, fit.A, fit.B, fit.alpha, fit.beta], [1.7, 400.0, 900.0, 0.34, 0.30], rtol=1e-6)
    np.testing.assert_allclose(fit.loss(N, D), loss, rtol=1e-9)
    C = 1e20
    best_N, best_D = fit.optimum(C)
    np.testing.assert_allclose(6.0 * best_N * best_D, C, rtol=1e-12)
    around = fit.loss(best_N * np.array([0.9, 1.0, 1.1]), C / 6.0 / (best_N * np.array([0.9, 1.0, 1.1])))
    assert around.argmin() == 1
    assert fit.exponent_a == pytest.approx(0.30 / 0.64, rel=1e-6)


def test_a_run_without_a_loss_is_named():
    with pytest.raises(ValueError, match=r"loss of row 2 is nan \(1 such rows\)"):
        parametric_law.fit_parametric([1e6] * 6, [1e8] * 6, [2.0, 2.0, np.nan, 2.0, 2.0, 2.0])


def test_one_size_cannot_be_fitted():
    with pytest.raises(ValueError, match="cannot tell the law's parameters apart"):
        parametric_law.fit_parametric([1e6] * 6, np.geomspace(1e8, 1e9, 6), np.linspace(3.0, 2.0, 6))


def test_misfittings_261_last_checkpoints_give_their_published_law(shared_data):
    """T5: log A 3.939, alpha .2003, beta .6357, objective .0050217 (2502.18969)."""
    table = pl.read_csv(shared_data / "scaling" / "misfitting_last_ckpt.csv")
    columns = [table[name].to_numpy() for name in ("N", "D", "loss")]
    fit = parametric_law.fit_parametric(*columns, starts=parametric_law.chinchilla_starts()[::10])
    assert fit.rows == 261
    assert fit.objective <= 0.0050216543
    assert np.log(fit.A) == pytest.approx(3.939, abs=2e-3)
    assert fit.alpha == pytest.approx(0.2003, abs=2e-4) and fit.beta == pytest.approx(0.6357, abs=3e-4)
