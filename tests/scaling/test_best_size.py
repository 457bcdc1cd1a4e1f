"""The best of the sizes run: sure where the points are apart, a coin's toss where they are not; PLUM's own points."""

import pathlib
import runpy

import numpy as np
import pytest

from plum_jax.scaling.best_size import best_sizes
from plum_jax.scaling.iso_flop import IsoFlopPoints

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def points(values, error):
    N = np.arange(1.0, len(values) + 1)
    errors = None if error is None else np.full(len(values), error)
    return IsoFlopPoints(np.ones(len(values)), N, 1 / N, np.array(values), np.arange(len(values)), errors)


def test_probabilities_are_those_of_gaussians():
    (sure,) = best_sizes(points([0.1, 0.2, 0.3], 0.001), maximise=True)
    assert sure.best == 3.0
    assert sure.probability.tolist() == [0, 0, 1]
    assert best_sizes(points([0.1, 0.2, 0.3], 0.001))[0].best == 1.0
    (toss,) = best_sizes(points([0.2, 0.2], 0.01))
    np.testing.assert_allclose(toss.probability, 0.5, atol=0.03)
    # One standard error of the difference apart: the normal distribution at 1.
    (apart,) = best_sizes(points([0.2, 0.2 + 0.01 * np.sqrt(2)], 0.01), maximise=True)
    assert apart.ahead == pytest.approx(1)
    assert apart.probability[1] == pytest.approx(0.8413, abs=0.02)


def test_without_errors_nothing_is_probable():
    with pytest.raises(ValueError, match="standard error"):
        best_sizes(points([1.0, 2.0], None))


def test_plum_s_own_points(shared_data):
    path = shared_data / "scaling" / "plum_isoflops_digitised.csv"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    frontier = runpy.run_path(str(REPOSITORY / "experiments" / "plum_frontier" / "frontier.py"))
    recall = {best.budget: best for best in best_sizes(frontier["points_of"](path, "recall"), maximise=True)}
    # The paper: 370M is best in the middle, 900M at the end, 3B nowhere.
    assert recall[1e20].best == 370e6
    assert recall[3e22].best == recall[5e22].best == 900e6
    assert recall[3e22].probability[recall[3e22].sizes == 900e6] > 0.9
    assert all(best.best < 3e9 for best in recall.values())
    by_loss = frontier["fit"](frontier["points_of"](path, "loss", 6e20), "loss").N
    by_recall = frontier["fit"](frontier["points_of"](path, "recall", 6e20), "recall").N
    assert by_recall.exponent_interval[1] < by_loss.exponent_interval[0]
    turn, low, high = by_loss.flops_for(900e6)
    # 900M's turn by training loss comes about where the curves end, at 1e22 to 1e23; 3B's decades later.
    assert low < turn < high
    assert 1e22 < turn < 2e23
    assert by_loss.flops_for(3e9)[1] > 1.4e23
    readme = (REPOSITORY / "experiments" / "plum_frontier" / "README.md").read_text()
    for line in frontier["table"](path).splitlines():
        assert line in readme
