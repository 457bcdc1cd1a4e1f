"""Deadweight compute: none at the best size, and what it is elsewhere by the law itself."""

import numpy as np
import pytest

from plum_jax.scaling import design
from plum_jax.scaling.deadweight import deadweight_share

LAW = design.GuessedLaw()


def test_the_best_size_wastes_nothing():
    assert deadweight_share(LAW, design.optimum(LAW, 1e20)[0], 1e20, 6.0) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("factor", [0.2, 0.5, 3.0])
def test_what_is_left_reaches_the_same_loss(factor):
    best, _ = design.optimum(LAW, 1e20)
    share = deadweight_share(LAW, factor * best, 1e20, 6.0)
    assert 0 < share < 1
    reached = design.loss(LAW, *design.optimum(LAW, 1e20 * (1 - share)))
    assert reached == pytest.approx(float(design.loss(LAW, factor * best, 1e20 / 6 / (factor * best))), rel=1e-9)


def test_further_off_wastes_more():
    best, _ = design.optimum(LAW, 1e20)
    shares = [deadweight_share(LAW, best * k, 1e20, 6.0) for k in (1.1, 1.5, 2, 4, 8)]
    assert np.all(np.diff(shares) > 0)
