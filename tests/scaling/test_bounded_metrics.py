"""Forms of recall: planted laws, published two-step fits, the error of a rate, and the choice by held-out budget."""

import numpy as np
import polars as pl
import pytest
from scipy.special import expit

from plum_jax.scaling import bounded_forms as forms
from plum_jax.scaling import bounded_metrics as bounded
from plum_jax.scaling import design, rate_selection
from plum_jax.scaling.bootstrap import draw_counts
from plum_jax.scaling.least_squares import minimise_squares

LAW = design.GuessedLaw(1.2, 40.0, 90.0, 0.33, 0.3)
FLOOR = 0.003


def grid(first=12, last=15, budgets=5, sizes=5, seeds=1):
    rows = []
    for flops in np.logspace(first, last, budgets):
        for k in np.logspace(-0.6, 0.6, sizes):
            for seed in range(seeds):
                n = design.optimum(LAW, flops)[0] * k
                rows.append((flops, n, flops / 6 / n, seed))
    return np.array(rows).T


def points_of(rate, N, D, users=None, seed=0):
    """Points with that rate, with hits drawn where there are users."""
    error = None
    if users is not None:
        rate = np.random.default_rng(seed).binomial(users, rate) / users
        error = bounded.rate_errors(rate, np.full(len(rate), float(users)))
    return bounded.RatePoints(N, D, 6 * N * D, rate, design.loss(LAW, N, D), np.arange(len(N)), error)


def planted(form, N, D):
    """A rate that the form describes exactly."""
    n, d, c = np.log(N / 1e5), np.log(D / 1e7), np.log(6 * N * D / 1e13)
    loss = design.loss(LAW, N, D)
    return {
        forms.LOGIT_LINE.name: FLOOR + (1 - FLOOR) * expit(-2 + 0.3 * c),
        forms.LINE.name: 0.1 + 0.02 * c,
        forms.POWERS.name: 1 - (0.5 + 0.2 * np.exp(-0.3 * n) + 0.1 * np.exp(-0.2 * d)),
        forms.POWER_OF_COMPUTE.name: 1 - (0.5 + 0.3 * np.exp(-0.1 * c)),
        forms.SIGMOID_OF_LOSS.name: FLOOR + (0.6 - FLOOR) * expit(-2.0 * (loss - 2.0)),
        forms.DECAY_OF_LOSS.name: FLOOR + np.exp(0.5 - 1.1 * loss),
        forms.LOGIT_POWERS.name: FLOOR + (1 - FLOOR) * expit(1.0 - 1.5 * np.exp(-0.3 * n) - np.exp(-0.2 * d)),
    }[form.name]


@pytest.mark.parametrize("form", forms.FORMS, ids=lambda form: form.name[:2])
def test_every_form_finds_what_was_planted_and_predicts_ahead(form):
    _, N, D, _ = grid()
    fit = bounded.fit_rate(form, points_of(planted(form, N, D), N, D), FLOOR)
    ahead_n, ahead_d = 30 * N, 30 * D
    np.testing.assert_allclose(
        fit.rate(ahead_n, ahead_d, 6 * ahead_n * ahead_d, design.loss(LAW, ahead_n, ahead_d)),
        planted(form, ahead_n, ahead_d),
        atol=2e-4,
    )
    if form.irreducible is not None:
        assert fit.irreducible == pytest.approx(0.5, abs=2e-3)


def test_the_true_form_wins_on_the_held_out_budget():
    budget, N, D, _ = grid()
    rate = planted(forms.SIGMOID_OF_LOSS, N, D)
    points = points_of(rate, N, D, users=200_000)
    cell = np.arange(len(N))
    trials = rate_selection.try_on_largest_budget(forms.FORMS, points, budget, cell, points.loss, FLOOR)
    errors = {trial.form: abs(trial.error) for trial in trials}
    assert trials[0].form in (forms.SIGMOID_OF_LOSS.name, forms.LOGIT_POWERS.name)
    assert errors[forms.SIGMOID_OF_LOSS.name] < 0.004
    assert errors[forms.LOGIT_LINE.name] > 10 * errors[forms.SIGMOID_OF_LOSS.name]
    # The best cell of the budget is what is predicted, so the observed one is the largest there.
    assert trials[0].observed == points.rate[budget == budget.max()].max()


def test_too_few_points_are_said_not_fitted():
    budget, N, D, _ = grid(12, 13, budgets=2, sizes=2)
    points = points_of(planted(forms.POWERS, N, D), N, D)
    with pytest.raises(ValueError, match="5 parameters, and there are 4 points"):
        bounded.fit_rate(forms.POWERS, points)
    trials = rate_selection.try_on_largest_budget(forms.FORMS, points, budget, np.arange(4), points.loss)
    untried = {trial.form: trial.why_not for trial in trials if np.isnan(trial.error)}
    assert "parameters, and there are 2 points" in untried[forms.POWERS.name]
    assert "the best of 1 budgets: nothing is left" in untried[forms.POWER_OF_COMPUTE.name]


def test_error_of_a_rate_is_binomial_and_of_seeds():
    # Relative errors at 10,000 users: 10% at a rate of 1%, 3% at 10%.
    errors = bounded.rate_errors(np.array([0.01, 0.1]), np.full(2, 10_000.0))
    np.testing.assert_allclose(errors / np.array([0.01, 0.1]), [0.0995, 0.03], rtol=0.01)
    assert bounded.rate_errors(np.zeros(1), np.full(1, 100.0))[0] > 0
    seeds = bounded.rate_errors(np.array([0.1]), np.full(1, 10_000.0), seed_sd=0.004)
    assert seeds[0] == pytest.approx(0.005, rel=0.01)


def test_lack_of_fit_is_told_from_counting_noise():
    _, N, D, _ = grid(sizes=9)
    right = bounded.fit_rate(forms.LOGIT_POWERS, points_of(planted(forms.LOGIT_POWERS, N, D), N, D, 5_000), FLOOR)
    wrong = bounded.fit_rate(forms.LINE, points_of(planted(forms.LOGIT_POWERS, N, D), N, D, 5_000), FLOOR)
    assert 0.5 < right.chi_square / right.freedom < 1.6
    assert right.lack_of_fit_sd < 0.003
    assert wrong.lack_of_fit_sd > 0.008


def test_draws_of_runs_cover_the_rate_ahead():
    _, N, D, _ = grid()
    rate = planted(forms.LOGIT_POWERS, N, D)
    ahead = (np.array([1e6]), np.array([3e8]), np.array([1.8e15]))
    truth = planted(forms.LOGIT_POWERS, *ahead[:2])[0]
    covered = []
    for study in range(24):
        points = points_of(rate, N, D, 3_000, seed=study)
        counts = draw_counts(len(points.run), 40, study, scheme="copies", runs=points.run)
        assert np.all(counts.sum(1) == len(N))
        fit = bounded.fit_rate(forms.LOGIT_POWERS, points, FLOOR, counts)
        drawn = fit.drawn_rates(*ahead, np.full((40, 1), 2.0))[:, 0]
        covered.append(np.quantile(drawn, 0.05) <= truth <= np.quantile(drawn, 0.95))
    # 90% intervals of 24 studies; the bootstrap of 25 runs is a little short.
    assert np.mean(covered) >= 0.75


def test_profile_of_the_irreducible_miss_rate():
    _, N, D, _ = grid(12, 18, budgets=7)
    known = bounded.profile_irreducible(forms.POWERS, points_of(planted(forms.POWERS, N, D), N, D, 10_000_000))
    assert known.identified
    assert known.interval[0] < 0.5 < known.interval[1]
    _, N, D, _ = grid(13, 14.5, budgets=3)
    unknown = bounded.profile_irreducible(forms.POWERS, points_of(planted(forms.POWERS, N, D), N, D, 3_000))
    assert not unknown.identified


def test_least_squares_of_many_problems():
    x = np.linspace(0, 1, 20)
    truth = np.random.default_rng(0).uniform(0.5, 2, (50, 2))
    y = truth[:, :1] * np.exp(-truth[:, 1:] * x)
    found, cost = minimise_squares(lambda t, which: t[:, :1] * np.exp(-t[:, 1:] * x) - y[which], np.ones((50, 2)))
    np.testing.assert_allclose(found, truth, rtol=1e-7)
    assert np.all(cost < 1e-15)


def test_gadre_et_al(shared_data):
    path = shared_data / "scaling" / "gadre_overtraining.csv"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    table = pl.read_csv(path)
    rows = {row["name"]: row for row in table.iter_rows(named=True)}
    small = ["d=96_l=8_h=4-1.0", "d=96_l=8_h=4-16.0", "d=512_l=8_h=4-1.0", "d=576_l=24_h=8-1.0", "d=1024_l=24_h=8-1.0"]
    fitted = [rows[f"rpj-{name}"] for name in small]
    N, D, loss = (np.array([row[c] for row in fitted], float) for c in ("N", "D", "loss_c4_val"))

    def law(theta, N, D):
        return (
            np.exp(theta[:, :1] - theta[:, 2:3] * np.log(N / 1e8))
            + np.exp(theta[:, 1:2] - theta[:, 2:3] * np.log(D / 2e9))
            + theta[:, 3:]
        )

    starts = np.array([[0, 0, a, e] for a in (0.1, 0.3, 0.6) for e in (0.5, 1.5, 2.5)])
    ends, costs = minimise_squares(lambda t, which: law(t, N, D) - loss, starts)
    theta = ends[np.argmin(costs)][None]
    assert theta[0, 2] == pytest.approx(0.27285, abs=1e-5)
    assert theta[0, 3] == pytest.approx(1.8366, abs=1e-4)
    seen = [*fitted, rows["rpj-open_lm_1b-1.0"]]
    columns = (np.array([row[c] for row in seen], float) for c in ("N", "D", "cc_mult", "err17", "loss_c4_val"))
    N, D, C, error, loss = columns
    points = bounded.RatePoints(N, D, C, 1 - error, loss, np.arange(6))
    fit = bounded.fit_rate(forms.DECAY_OF_LOSS, points, floor=None)
    log_k, log_gamma, bottom = fit.theta
    np.testing.assert_allclose(
        [np.exp(log_k), np.exp(log_gamma), 1 - expit(bottom)], [2.2065, 0.7146, 0.8570], atol=1e-4
    )
    expected = {"rpj-open_lm_1b-32.0": (0.7103, 3.6365), "rpj-open_lm_7b-1.0": (0.7320, 0.0464)}
    for name, (of_loss, of_error) in expected.items():
        row = rows[name]
        n, d = np.array([row["N"]], float), np.array([row["D"]], float)
        loss = law(theta, n, d)[0]
        rate = fit.rate(n, d, n, loss)
        assert 100 * abs(loss[0] / row["loss_c4_val"] - 1) == pytest.approx(of_loss, abs=1e-3)
        assert 100 * abs((1 - rate[0]) / row["err17"] - 1) == pytest.approx(of_error, abs=1e-3)


@pytest.mark.parametrize(
    ("task", "loss", "accuracy"), [("hellaswag", 0.6531766, 0.853036), ("piqa", 0.8747949, 0.820804)]
)
def test_olmo_ladder(shared_data, task, loss, accuracy):
    path = shared_data / "scaling" / "olmo_ladder_curves.csv"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    curves = pl.read_csv(path).filter(pl.col("mode") == "train")
    # The mean of five evaluations after the first tenth of a run; and at loss 0 every answer is right.
    losses, rates = [0.0], [1.0]
    for _, run in curves.group_by("run", maintain_order=True):
        late = run.sort("i")[int(np.ceil(0.1 * len(run))) :]
        smooth = late.select(pl.col(f"{task}_bpb", f"{task}_acc").rolling_mean(5, min_samples=1))
        losses += smooth[f"{task}_bpb"].to_list()
        rates += smooth[f"{task}_acc"].to_list()
    one = np.ones(len(losses))
    points = bounded.RatePoints(one, one, one, np.array(rates), np.array(losses), np.arange(len(losses)))
    fit = bounded.fit_rate(forms.SIGMOID_OF_LOSS, points, floor=None)
    assert fit.rate(one[:1], one[:1], one[:1], np.array([loss]))[0] == pytest.approx(accuracy, abs=1e-5)
