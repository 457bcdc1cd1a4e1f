"""Intervals hold the truth as often as they say."""

import numpy as np
import pytest

from plum_jax.scaling import coverage

N, D, _ = coverage.grid(np.geomspace(1e18, 1e20, 5), 7, 4.0, coverage.PLANTED)
LOOKED_UP = ("E", "A", "B", "alpha", "beta", "a", "loss")


def test_intervals_of_a_few_studies_hold_the_truth():
    found = coverage.measure(N, D, studies=20, draws=30)
    shares = np.array([found.share[name] for name in LOOKED_UP])
    assert np.all(shares >= 0.7) and 0.8 <= shares.mean() <= 0.99


def test_intervals_of_half_the_level_hold_it_half_as_often():
    found = coverage.measure(N, D, studies=20, draws=40, level=0.4)
    assert 0.2 <= np.mean([found.share[name] for name in LOOKED_UP]) <= 0.65


@pytest.mark.slow
def test_ninety_percent_intervals_cover_85_to_95_percent_of_200_studies():
    found = coverage.measure(N, D, studies=200, draws=200, seed=1)
    outside = {name: share for name, share in found.share.items() if not 0.85 <= share <= 0.95}
    assert not outside, f"shares of 200 studies: {found.share}"
