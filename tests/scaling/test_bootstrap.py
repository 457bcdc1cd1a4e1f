"""Resampling by run, intervals that were published, and prediction intervals."""

import numpy as np
import pytest

from plum_jax.scaling import bootstrap, parametric_law

STARTS = parametric_law.chinchilla_starts()[1113::450]


def planted(seed: int = 0, noise: float = 0.003) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    loss = 1.7 + 400.0 * N**-0.34 + 900.0 * D**-0.30
    return N, D, loss * np.exp(np.random.default_rng(seed).normal(0.0, noise, len(N)))


def test_rows_of_a_run_are_drawn_together_and_strata_keep_their_number_of_runs():
    runs = np.array(["r0", "r0", "r1", "r2", "r3", "r3", "r3", "r4"])
    strata = np.array([1, 1, 1, 1, 2, 2, 2, 2])
    counts = bootstrap.draw_counts(8, 200, seed=3, scheme="copies", runs=runs, strata=strata)
    for run in np.unique(runs):
        assert np.all(np.ptp(counts[:, runs == run], axis=1) == 0)
    first = [int(np.flatnonzero(runs == run)[0]) for run in np.unique(runs)]
    assert np.all(counts[:, first[:3]].sum(1) == 3) and np.all(counts[:, first[3:]].sum(1) == 2)
    assert np.array_equal(counts, bootstrap.draw_counts(8, 200, seed=3, scheme="copies", runs=runs, strata=strata))
    weights = bootstrap.draw_counts(8, 200, seed=3, runs=runs, strata=strata)
    np.testing.assert_allclose(weights[:, first[:3]].sum(1), 3)
    assert weights.min() > 0 and np.all(weights[:, 0] == weights[:, 1])
    with pytest.raises(ValueError, match="row 0 is in another stratum"):
        bootstrap.draw_counts(2, 1, seed=0, runs=np.array([0, 0]), strata=np.array([0, 1]))


def test_a_run_repeated_as_checkpoints_does_not_narrow_the_interval():
    N, D, loss = planted()
    once = bootstrap.bootstrap(N, D, loss, draws=100, starts=STARTS)
    copied = [np.repeat(column, 3) for column in (N, D, loss)]
    thrice = bootstrap.bootstrap(*copied, runs=np.repeat(np.arange(len(N)), 3), draws=100, starts=STARTS)
    naive = bootstrap.bootstrap(*copied, draws=100, starts=STARTS)
    width = [float(np.ptp([i.low, i.high])) for i in (b.interval("alpha") for b in (once, thrice, naive))]
    assert width[1] == pytest.approx(width[0], rel=1e-6)  # the same draws, each row three times
    assert width[2] < 0.75 * width[0]


def test_published_intervals_of_the_240_points(chinchilla):
    """T4: 95% over points by the likelihood fit; widths within 15%, the upper end of B within 45%."""
    draws = bootstrap.bootstrap(*chinchilla, draws=400, method="likelihood", scheme="copies", starts=STARTS, seed=1)
    published = {"A": (285, 744), "E": (1.769, 1.871), "alpha": (0.317, 0.373), "beta": (0.331, 0.415)}
    for name, (low, high) in published.items():
        ours = draws.interval(name, 0.95)
        assert abs(ours.low - low) < 0.15 * (high - low), name
        assert abs(ours.high - high) < 0.15 * (high - low), name
    B = draws.interval("B", 0.95)
    assert abs(B.low - 1042) < 0.15 * (5810 - 1042) and abs(B.high - 5810) < 0.45 * (5810 - 1042)
    assert draws.values("a").std() == pytest.approx(0.020, rel=0.2)


def test_prediction_interval_holds_new_runs_and_its_parts_add_up():
    N, D, loss = planted(noise=0.004)
    fit = parametric_law.fit_parametric(N, D, loss, starts=STARTS)
    draws = bootstrap.bootstrap(N, D, loss, draws=100, starts=STARTS)
    predicted = bootstrap.predict(fit, draws, 4e9, 4e11, seed_sd=0.002)
    truth = 1.7 + 400.0 * 4e9**-0.34 + 900.0 * 4e11**-0.30
    assert predicted.low < truth < predicted.high
    assert np.hypot(predicted.residual_sd, predicted.seed_sd) == pytest.approx(fit.residual_sd)
    total = np.sqrt(predicted.parameter_sd**2 + fit.residual_sd**2)
    assert np.log(predicted.high / predicted.low) == pytest.approx(2 * 1.645 * total, rel=0.15)
    np.testing.assert_allclose(draws.loss(N, D)[7], np.exp(parametric_law.log_loss(draws.log_parameters[7], N, D)))
    one = parametric_law.parametric_fit(draws.log_parameters[7], N, D, loss, objective=0.0, method="huber")
    np.testing.assert_allclose([column[7] for column in draws.optimum(1e21)], one.optimum(1e21))
