"""Repeated data: the published point, the second basin, and planted constants."""

import numpy as np
import polars as pl
import pytest

from plum_jax.scaling import data_constrained, parametric_law

C4 = parametric_law.ParametricFit(
    E=float(np.exp(0.6254804)),
    A=float(np.exp(6.255414)),
    B=float(np.exp(7.3049974)),
    alpha=0.3526596,
    beta=0.3526596,
    objective=0.0,
    method="huber",
    rows=0,
    residual_sd=0.0,
)


def test_published_point_is_one_basin_and_the_flat_profile_is_reported(shared_data):
    """T11: objective .01582594 at R_D* 15.39, R_N* 5.31; .015805 near R_D* 95, .015878 at 1000."""
    table = pl.read_csv(shared_data / "scaling" / "data_constrained_c4.csv")
    N, D, unique, loss = (table[name].to_numpy() for name in ("N", "D", "U", "loss"))
    residual = data_constrained._log_loss(C4, N, D, unique, 15.387756, 5.309743) - np.log(loss)
    clipped = np.clip(residual, -1e-3, 1e-3)
    assert (clipped * (residual - 0.5 * clipped)).sum() == pytest.approx(0.015825936570763588, abs=1e-7)

    fit = data_constrained.fit_data_constrained(N, D, unique, loss, C4)
    near = [basin for basin in fit.basins if 12 < basin.R_D < 20]
    assert near and min(basin.objective for basin in near) <= 0.0158259366
    far = [basin for basin in fit.basins if 60 < basin.R_D < 150]
    assert far and min(basin.objective for basin in far) == pytest.approx(0.015805, abs=2e-6)
    at_1000 = np.interp(3.0, np.log10(fit.profile.values), fit.profile.objective)
    assert at_1000 == pytest.approx(0.015878, abs=2e-6)
    assert not fit.profile.bounded_above and fit.profile.flat


def test_planted_repetition_is_recovered_and_identified():
    grids = np.meshgrid(np.geomspace(1e7, 1e10, 5), np.geomspace(1e8, 1e10, 3), [1.0, 3.0, 10.0, 40.0, 150.0])
    N, unique, epochs = (grid.ravel() for grid in grids)
    D = unique * epochs
    loss = np.exp(data_constrained._log_loss(C4, N, D, unique, 12.0, 6.0))
    loss = loss * np.exp(np.random.default_rng(0).normal(0.0, 0.002, len(N)))
    fit = data_constrained.fit_data_constrained(N, D, unique, loss, C4)
    assert pytest.approx(12.0, rel=0.1) == fit.basins[0].R_D and pytest.approx(6.0, rel=0.1) == fit.basins[0].R_N
    assert not fit.profile.flat and fit.profile.low < 12.0 < fit.profile.high
    np.testing.assert_allclose(fit.loss(N, D, unique), loss, rtol=0.02)
    once = unique == D
    assert np.all(fit.loss(N[once], D[once], unique[once]) <= fit.loss(N[once], D[once], unique[once] / 10))
