"""Laws in activated and total parameters, planted."""

import numpy as np
import pytest

from plum_jax.scaling import moe_law, parametric_law

STARTS = parametric_law.chinchilla_starts()[1113::450]


def runs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    grids = np.meshgrid(np.geomspace(1e6, 1e9, 5), np.geomspace(1e8, 1e11, 5), [1.0, 2.0, 4.0, 16.0])
    activated, D, ratio = (grid.ravel() for grid in grids)
    return activated, activated * ratio, D


def test_planted_ratio_exponent_is_recovered_and_dense_runs_follow_the_dense_law():
    activated, total, D = runs()
    loss = 1.7 + 400.0 * activated**-0.34 * (total / activated) ** -0.12 + 900.0 * D**-0.30
    fit = moe_law.fit_moe(activated, total, D, loss, starts=STARTS)
    assert fit.parameters["gamma"] == pytest.approx(0.12, rel=1e-5)
    assert fit.parameters["alpha"] == pytest.approx(0.34, rel=1e-5)
    np.testing.assert_allclose(fit.loss(activated, total, D), loss, rtol=1e-8)
    np.testing.assert_allclose(fit.loss(1e8, 1e8, 1e10), 1.7 + 400.0 * 1e8**-0.34 + 900.0 * 1e10**-0.30, rtol=1e-8)


def test_joint_law_finds_what_depends_on_the_ratio():
    activated, total, D = runs()
    log_ratio = np.log(total / activated)
    first = 400.0 * np.exp(-0.12 * log_ratio) * activated ** -(0.34 - 0.01 * log_ratio)
    second = 900.0 * np.exp(0.2 * log_ratio) * D ** -(0.30 + 0.008 * log_ratio)
    loss = 1.7 + first + second
    fit = moe_law.fit_moe(activated, total, D, loss, joint=True, starts=STARTS)
    found = [fit.parameters[name] for name in ("alpha", "alpha_ratio", "beta", "beta_ratio", "gamma", "omega")]
    np.testing.assert_allclose(found, [0.34, -0.01, 0.30, 0.008, 0.12, -0.2], rtol=1e-3)
    plain = moe_law.fit_moe(activated, total, D, loss, starts=STARTS)
    assert plain.objective > 100 * fit.objective


def test_dense_runs_alone_and_impossible_counts_are_refused():
    activated, total, D = runs()
    with pytest.raises(ValueError, match="one ratio of total to activated"):
        moe_law.fit_moe(activated, activated, D, D)
    with pytest.raises(ValueError, match="row 3 has .* in total and activates"):
        moe_law.fit_moe(activated, np.where(np.arange(100) == 3, 1.0, total), D, D)
