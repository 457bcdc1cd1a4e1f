"""Seed and evaluation noise from simulated replicates."""

import numpy as np
import pytest

from plum_jax.scaling import noise


def test_seed_noise_is_what_the_binomial_does_not_explain():
    draw = np.random.default_rng(0)
    cells, users = np.repeat(np.arange(300), 3), 20_000
    rate = np.repeat(draw.uniform(0.05, 0.1, 300), 3) + draw.normal(0.0, 0.002, 900)
    hits = draw.binomial(users, rate)
    found = noise.replicate_noise(cells, hits / users, noise.binomial_standard_error(hits, np.full(900, users)))
    assert found.degrees == 600
    assert found.seed_sd == pytest.approx(0.002, rel=0.1)
    assert found.evaluation_sd == pytest.approx(np.sqrt(0.075 * 0.925 / users), rel=0.05)
    assert found.low < found.sd < found.high


def test_cells_of_one_run_say_nothing():
    with pytest.raises(ValueError, match="no cell has two runs"):
        noise.replicate_noise(np.arange(3), np.ones(3))
    one = noise.replicate_noise(np.array([0, 0, 1, 2]), np.array([1.0, 1.2, 50.0, 70.0]))
    assert one.degrees == 1 and one.sd == pytest.approx(0.2 / np.sqrt(2))


def test_binomial_error_has_no_zero_and_refuses_more_hits_than_users():
    assert noise.binomial_standard_error(np.array([0]), np.array([100]))[0] > 0
    assert noise.binomial_standard_error(np.array([100]), np.array([10_000]))[0] == pytest.approx(0.000995, rel=0.01)
    with pytest.raises(ValueError, match="row 1 has 6 hits of 5 users"):
        noise.binomial_standard_error(np.array([1, 6]), np.array([5, 5]))
