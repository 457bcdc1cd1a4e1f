"""Iso-FLOP optima: planted exponents, the known biases of the parabola, the gates, and intervals that cover."""

import numpy as np
import pytest

from plum_jax.scaling import design
from plum_jax.scaling.iso_flop import Gates, IsoFlopPoints, fit_iso_flop

# alpha = beta: the only law whose parabolas are not biased.
SYMMETRIC = design.GuessedLaw(1.69, 406.4, 410.7, 0.31, 0.31)


def points_of(law, budgets, factors, noise=0.0, seed=0):
    rows = [(c, design.optimum(law, c)[0] * k) for c in budgets for k in factors]
    budget, N = np.array(rows).T
    D = budget / 6 / N
    loss = design.loss(law, N, D) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(N)))
    return IsoFlopPoints(budget, N, D, loss, np.arange(len(N)))


@pytest.mark.parametrize(
    ("alpha", "beta", "true_intercept", "parabola_intercept"),
    [
        (0.34, 0.28, -0.555357, -0.578092),
        (0.465, 0.155, -1.345791, -1.459957),
        (0.31, 0.31, -0.381703, -0.381703),
    ],
)
def test_bias_of_the_parabola_without_noise(alpha, beta, true_intercept, parabola_intercept):
    # 15 sizes over 16 times to either side of the optimum, five budgets: the published constants of the bias of D*.
    law = design.GuessedLaw(1.69, 406.4, 410.7, alpha, beta)
    points = points_of(law, np.logspace(17, 21, 5), np.logspace(-np.log10(16), np.log10(16), 15))
    fit = fit_iso_flop(points, draws=10)
    assert np.log10(design.optimum(law, 6.0)[1]) - alpha / (alpha + beta) * np.log10(6) == pytest.approx(
        true_intercept, abs=2e-5
    )
    assert np.log10(fit.D.coefficient) == pytest.approx(parabola_intercept, abs=2e-5)
    # Centred grids bias the constant and leave the exponents alone.
    assert fit.N.exponent == pytest.approx(beta / (alpha + beta), abs=1e-9)
    assert fit.D.exponent == pytest.approx(alpha / (alpha + beta), abs=1e-9)


def test_intervals_cover():
    budgets, factors = np.logspace(15, 18, 5), np.logspace(-0.6, 0.6, 7)
    covered = []
    for study in range(200):
        fit = fit_iso_flop(points_of(SYMMETRIC, budgets, factors, 0.003, study), draws=200, seed=study)
        low, high = fit.N.exponent_interval
        covered.append(low <= 0.5 <= high)
    # 90% intervals of 200 studies: 0.9 +- 0.042 is two standard deviations.
    assert 0.85 <= np.mean(covered) <= 0.95


def test_a_metric_is_maximised():
    points = points_of(SYMMETRIC, np.logspace(15, 18, 4), np.logspace(-0.6, 0.6, 7))
    recall = 1 - points.value / 20
    upside_down = IsoFlopPoints(points.budget, points.N, points.D, recall, points.run)
    best = fit_iso_flop(upside_down, maximise=True, draws=10)
    assert best.N.exponent == pytest.approx(0.5, abs=1e-9)
    assert not any(p.accepted for p in fit_iso_flop(upside_down, draws=10).parabolas)


def test_every_gate_says_why():
    def reason(law_values, N, gates=None):
        points = IsoFlopPoints(np.ones(len(N)), np.array(N), 1 / np.array(N), np.array(law_values), np.arange(len(N)))
        (parabola,) = fit_iso_flop(points, gates=gates, draws=10).parabolas
        assert parabola.accepted == (parabola.reason == "")
        return parabola.reason

    x = np.arange(6.0)
    bent = (x - 2.5) ** 2
    assert reason(bent, np.exp(x)) == ""
    assert "2 sizes make no parabola" in reason(bent[:2], np.exp(x[:2]))
    assert "4 sizes, at least 5" in reason(bent[:4], np.exp(x[:4]))
    assert "bent the wrong way" in reason(-bent, np.exp(x))
    assert "outside the sizes" in reason((x + 3) ** 2, np.exp(x))
    assert "only 1 sizes on one side" in reason((x - 0.5) ** 2, np.exp(x), Gates(sizes_either_side=2))
    noisy = bent * 0.001 + np.array([1.0, -1, 1, -1, 1, -1])
    assert "interval of the curvature holds 0" in reason(noisy, np.exp(x))


def test_an_outlier_is_left_out_and_kept_for_the_plot():
    points = points_of(SYMMETRIC, [1e17], np.logspace(-0.8, 0.8, 9), 0.0005)
    points.value[3] *= 1.2
    (parabola,) = fit_iso_flop(points, draws=10).parabolas
    assert list(parabola.rejected) == [3]
    assert "standard deviations from the parabola" in parabola.rejected[3]
    assert pytest.approx(design.optimum(SYMMETRIC, 1e17)[0], rel=0.05) == parabola.N


def test_one_budget_makes_no_line():
    fit = fit_iso_flop(points_of(SYMMETRIC, [1e17], np.logspace(-0.6, 0.6, 7)), draws=10)
    assert fit.N is None
    assert "1 of 1 budgets" in fit.why_not


def test_known_errors_make_four_points_enough():
    points = points_of(SYMMETRIC, np.logspace(15, 18, 4), np.logspace(-0.6, 0.6, 4), 0.002)
    errors = 0.002 * points.value
    known = IsoFlopPoints(points.budget, points.N, points.D, points.value, points.run, errors)
    fit = fit_iso_flop(known, gates=Gates(minimum_sizes=4), draws=300)
    assert all(p.accepted for p in fit.parabolas)
    low, high = fit.N.exponent_interval
    assert low < 0.5 < high
    assert high - low < 0.1
