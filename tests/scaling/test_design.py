"""Expected errors of a grid, against figures computed elsewhere and the scatter of simulated studies."""

import numpy as np
import pytest
import scipy.optimize

from plum_jax.scaling import design

LAW = design.GuessedLaw()


def grid(budgets, sizes, decades, half_range, top=1e18):
    """N and D of an iso-FLOP grid around the law's optimum."""
    cells = []
    for flops in np.logspace(np.log10(top) - decades, np.log10(top), budgets):
        best_n, _ = design.optimum(LAW, flops)
        for n in best_n * np.logspace(-np.log10(half_range), np.log10(half_range), sizes):
            cells.append((n, flops / 6 / n))
    return np.array(cells).T


@pytest.mark.parametrize(
    ("shape", "error_of_a", "percent_at_100x"),
    [
        ((3, 5, 1, 4), 0.021, 1.6),
        ((5, 7, 2, 4), 0.008, 1.0),
        ((5, 7, 3, 4), 0.005, 0.78),
        ((7, 9, 3, 8), 0.003, 0.53),
    ],
)
def test_known_grids(shape, error_of_a, percent_at_100x):
    errors = design.expected_standard_errors(*grid(*shape), LAW, 0.005)
    assert errors.a == pytest.approx(error_of_a, rel=0.09)
    assert 100 * errors.forecasts[1].relative_standard_error == pytest.approx(percent_at_100x, rel=0.04)
    quieter = design.expected_standard_errors(*grid(*shape), LAW, 0.002)
    assert errors.a / quieter.a == pytest.approx(2.5)


def test_decades_are_worth_more_than_runs():
    fifteen_wide = design.expected_standard_errors(*grid(3, 5, 3, 4), LAW, 0.005)
    thirty_five = design.expected_standard_errors(*grid(5, 7, 2, 4), LAW, 0.005)
    assert fifteen_wide.a < thirty_five.a


def test_simulated_studies_scatter_as_expected():
    N, D = grid(5, 7, 3, 4)
    expected = design.expected_standard_errors(N, D, LAW, 0.002)
    log_loss = np.log(design.loss(LAW, N, D))
    truth = np.log([LAW.E, LAW.A, LAW.B]).tolist() + [LAW.alpha, LAW.beta]
    draws = np.random.default_rng(0)

    def residuals(theta, observed):
        E, A, B = np.exp(theta[:3])
        return np.log(E + A * N ** -theta[3] + B * D ** -theta[4]) - observed

    fitted = []
    for _ in range(120):
        observed = log_loss + 0.002 * draws.standard_normal(len(N))
        fitted.append(scipy.optimize.least_squares(residuals, truth, args=(observed,)).x)
    fitted = np.array(fitted)
    a = fitted[:, 4] / (fitted[:, 3] + fitted[:, 4])
    # The standard deviation of 120 draws has a relative error of 6.5%.
    assert a.std() == pytest.approx(expected.a, rel=0.2)
    assert np.exp(fitted[:, 0]).std() == pytest.approx(expected.E, rel=0.2)
    assert fitted[:, 4].std() == pytest.approx(expected.beta, rel=0.2)


@pytest.mark.parametrize("cells", [grid(2, 2, 1, 4), np.array([[1e6] * 8, np.logspace(7, 9, 8)])])
def test_a_grid_that_cannot_tell_says_so(cells):
    errors = design.expected_standard_errors(*cells, LAW, 0.005)
    assert not errors.identified
    assert errors.a == np.inf
    assert "do not identify" in errors.text()


def test_next_cell_is_what_refitting_with_it_would_give():
    N, D = grid(3, 5, 2, 4)
    candidates = np.array([[3e6, 2e8, 5e7], [1e9, 4e9, 3e10]])
    ranked = design.rank_next_cells(N, D, *candidates, LAW, 0.005)
    before = design.expected_standard_errors(N, D, LAW, 0.005).a
    for cell in ranked:
        n, d = candidates[:, cell.index]
        after = design.expected_standard_errors(np.append(N, n), np.append(D, d), LAW, 0.005).a
        assert 1 - (after / before) ** 2 == pytest.approx(cell.variance_reduction, rel=1e-6)
    assert [c.per_flop for c in ranked] == sorted((c.per_flop for c in ranked), reverse=True)


def test_bad_input():
    with pytest.raises(ValueError, match="same length"):
        design.expected_standard_errors([1.0, 2.0], [1.0], LAW, 0.01)
    with pytest.raises(ValueError, match="positive"):
        design.expected_standard_errors([1.0], [-1.0], LAW, 0.01)
    with pytest.raises(ValueError, match="5 cells"):
        design.rank_next_cells([1e6], [1e8], [1e6], [1e9], LAW, 0.01)
