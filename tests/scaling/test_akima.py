"""Porian's interpolated optima: the published exponents from the released points, and a planted law."""

import json

import numpy as np
import polars as pl
import pytest

from plum_jax.scaling import akima, design
from plum_jax.scaling.iso_flop import IsoFlopPoints

LAW = design.GuessedLaw()


def test_planted_exponent_without_parabola_bias():
    # A grid whose centre drifts: the parabola's exponent is biased by it, the interpolated one is not.
    rows = []
    for i, flops in enumerate(np.logspace(15, 18, 5)):
        for k in np.logspace(-1.2, 1.2, 25) * 1.3**i:
            n = design.optimum(LAW, flops)[0] * k
            rows.append((flops, n, flops / 6 / n))
    budget, N, D = np.array(rows).T
    points = IsoFlopPoints(budget, N, D, design.loss(LAW, N, D), np.arange(len(N)))
    fit = akima.fit_akima(points, 1e-9, draws=3)
    assert fit.N.exponent == pytest.approx(LAW.beta / (LAW.alpha + LAW.beta), abs=2e-3)
    assert fit.N.exponent + fit.D.exponent == pytest.approx(1, abs=1e-6)


def test_the_best_run_of_a_size_counts_and_an_edge_is_no_optimum():
    N = np.array([1.0, 2, 4, 4, 8, 16])
    loss = np.array([3.0, 2.5, 9.0, 2.0, 2.5, 3.0])
    points = IsoFlopPoints(np.ones(6), N, 1 / N, loss, np.arange(6))
    (optimum,) = akima.fit_akima(points, 1e-9, draws=3).optima
    assert 3.8 < optimum.N < 4.2
    falling = IsoFlopPoints(np.ones(5), np.array([1.0, 2, 3, 4, 8]), 1 / N, -N + 10, np.arange(5))
    assert np.isnan(akima.fit_akima(falling, 1e-9, draws=3).optima[0].N)


def test_recall_is_maximised():
    N = np.exp(np.arange(5.0))
    recall = 0.3 - 0.01 * (np.arange(5) - 2.0) ** 2
    points = IsoFlopPoints(np.ones(5), N, 1 / N, recall, np.arange(5))
    assert pytest.approx(np.exp(2), rel=0.02) == akima.fit_akima(points, 1e-9, maximise=True, draws=3).optima[0].N


def test_exponents_of_porian_et_al(shared_data):
    directory = shared_data / "scaling"
    if not (directory / "porian_expected.json").exists():
        pytest.skip(f"no Porian points in {directory}")
    table = pl.read_csv(directory / "porian_isoflop.csv")
    expected = json.loads((directory / "porian_expected.json").read_text())
    assert len(expected) == 15
    for name, values in expected.items():
        file, config = name.split(":")
        rows = table.filter(pl.col("file") == file, pl.col("config") == config)
        optima, spreads, budgets = [], [], rows["flops"].unique().sort()
        for budget in budgets:
            curve = rows.filter(pl.col("flops") == budget).sort("loss").unique("N", keep="first").sort("N")
            optima.append(akima.optimum_of(curve["N"].log().to_numpy(), curve["loss"].log().to_numpy()))
            spreads.append(curve["n_star_std"][0])
        exponent = akima.weighted_exponent(budgets.to_numpy(), np.exp(optima), np.array(spreads))
        assert exponent == pytest.approx(values["a_bs_median_weighted"], abs=0.004), name


def test_our_own_noise_draws_give_the_same_exponents(shared_data):
    path = shared_data / "scaling" / "porian_isoflop.csv"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    table = pl.read_csv(path).filter(pl.col("file") == "summary_df")
    published = {
        "rw/base/long/kaplan/kaplan/train": (0.8353, 0.8235, 0.8460),
        "rw/base/short/chinchilla/standard/val": (0.5715, 0.5598, 0.5885),
        "rw/tuned/short/const/standard/val": (0.4969, 0.4907, 0.5045),
    }
    for config, (exponent, low, high) in published.items():
        rows = table.filter(pl.col("config") == config)
        columns = (rows[name].to_numpy() for name in ("flops", "N", "D", "loss"))
        points = IsoFlopPoints(*columns, run=np.arange(len(rows)))
        fit = akima.fit_akima(points, akima.seed_noise((3, 7), (0.002, 0.05)), draws=150, confidence=0.95)
        assert fit.N.exponent == pytest.approx(exponent, abs=0.012)
        # Ours hold theirs, and are at most 2.5 times as wide: each draw is refitted with the spread of the optima.
        assert fit.N.exponent_interval[0] < low + 0.005
        assert fit.N.exponent_interval[1] > high - 0.005
        assert fit.N.exponent_interval[1] - fit.N.exponent_interval[0] < 2.5 * (high - low)
