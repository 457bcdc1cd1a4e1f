"""The envelope of curves: a planted exponent, tokens beside sizes, and no line where one curve wins everywhere."""

import numpy as np
import pytest

from plum_jax.scaling import design
from plum_jax.scaling.envelope import fit_envelope

LAW = design.GuessedLaw()


def curves(sizes, noise=0.0):
    """Each size trained for 1/16 to 16 times the tokens that it is the best size for."""
    rows = []
    for i, n in enumerate(sizes):
        budget = 6 * n * n * (design.optimum(LAW, 1e18)[1] / design.optimum(LAW, 1e18)[0])
        for factor in np.geomspace(1 / 16, 16, 9):
            rows.append((i, n, budget * factor / 6 / n))
    curve, N, D = np.array(rows).T
    value = design.loss(LAW, N, D) * np.exp(noise * np.random.default_rng(0).standard_normal(len(N)))
    return curve, N, D, 6 * N * D, value


def test_planted_exponent():
    curve, N, D, C, value = curves(np.geomspace(1e6, 1e9, 16))
    fit = fit_envelope(curve, N, D, C, value, draws=50)
    a = LAW.beta / (LAW.alpha + LAW.beta)
    assert fit.line_N.exponent == pytest.approx(a, abs=0.02)
    assert fit.line_N.exponent + fit.line_D.exponent == pytest.approx(1, abs=0.01)
    low, high = fit.line_N.exponent_interval
    assert low < a < high
    assert fit.curves_on_envelope > 10
    # The envelope of the law is its frontier, but for the interpolation between curves and between their points.
    best = np.array([design.loss(LAW, *design.optimum(LAW, c)) for c in fit.flops])
    assert np.all(fit.value > best * 0.999)
    assert np.all(fit.value < best * 1.01)


def test_a_metric_is_maximised():
    curve, N, D, C, value = curves(np.geomspace(1e6, 1e9, 12))
    low = fit_envelope(curve, N, D, C, value, draws=5)
    high = fit_envelope(curve, N, D, C, 1 - value / 30, maximise=True, draws=5)
    assert high.line_N.exponent == pytest.approx(low.line_N.exponent, abs=1e-9)
    np.testing.assert_allclose(high.value, 1 - low.value / 30, rtol=1e-9)


def test_two_curves_make_no_line():
    curve, N, D, C, value = curves([1e6, 1e7])
    fit = fit_envelope(curve, N, D, C, value, draws=5)
    assert fit.line_N is None
    assert "0 curves of 2" in fit.why_not


def test_single_points_are_no_curves():
    N = np.array([1e6, 1e7, 1e8])
    fit = fit_envelope(np.arange(3), N, N * 20, 120 * N**2, np.array([3.0, 2.5, 2.0]), draws=5)
    assert fit.line_N is None
