"""Schedules by their definitions: where they begin, peak and end; what a branch shares with its trunk."""

import numpy as np
import pytest

from plum_jax.training.schedules import Constant, InverseSquareRoot, WarmupCosine, WarmupLinear, WarmupStableDecay


def test_warm_ups_peaks_and_ends():
    cosine = WarmupCosine(peak=1.0, warmup_steps=10, final_fraction=0.1).build(110)
    assert [float(cosine(step)) for step in (0, 10, 60, 110)] == pytest.approx([0.0, 1.0, 0.55, 0.1])
    linear = WarmupLinear(peak=1.0, warmup_steps=10, final_fraction=0.2).build(110)
    assert [float(linear(step)) for step in (0, 5, 10, 60, 110)] == pytest.approx([0.0, 0.5, 1.0, 0.6, 0.2])
    constant = Constant(peak=0.5, warmup_steps=4).build(0)
    assert [float(constant(step)) for step in (0, 2, 4, 400)] == [0.0, 0.25, 0.5, 0.5]


def test_inverse_square_root_holds_its_peak_or_climbs_to_it():
    t5 = InverseSquareRoot(peak=0.01, warmup_steps=100).build(0)
    assert [float(t5(step)) for step in (0, 50, 400)] == pytest.approx([0.01, 0.01, 0.005])
    climbing = InverseSquareRoot(peak=0.01, warmup_steps=100, warmup="linear").build(0)
    assert [float(climbing(step)) for step in (0, 50, 100, 400)] == pytest.approx([0.0, 0.005, 0.01, 0.005])


@pytest.mark.parametrize(("decay", "middle"), [("linear", 0.55), ("1-sqrt", 1 - 0.9 * 0.5**0.5)])
def test_wsd_decays_over_its_last_steps(decay, middle):
    rate = WarmupStableDecay(peak=1.0, warmup_steps=10, decay_steps=40, final_fraction=0.1, decay=decay).build(200)
    assert [float(rate(step)) for step in (0, 5, 10, 160, 180, 200)] == pytest.approx([0, 0.5, 1, 1, middle, 0.1])


def test_a_branch_has_its_trunks_rates_until_it_decays():
    steps = np.arange(301)
    trunk = WarmupStableDecay(peak=0.3, warmup_steps=7).build(300)
    branch = WarmupStableDecay(peak=0.3, warmup_steps=7, decay_steps=20).build(120)
    trunk_rates, rates = (np.array([float(rate(step)) for step in steps]) for rate in (trunk, branch))
    np.testing.assert_array_equal(rates[:101], trunk_rates[:101])
    assert np.all(np.diff(rates[100:121]) < 0) and rates[120] == 0.0
    assert trunk_rates[300] == np.float32(0.3)


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="expected warm-up and decay to fit into 50 steps"):
        WarmupStableDecay(warmup_steps=20, decay_steps=40).build(50)
    with pytest.raises(ValueError, match="'linear' or '1-sqrt', got 'cosine'"):
        WarmupStableDecay(decay="cosine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'constant' or 'linear', got 'none'"):
        InverseSquareRoot(warmup="none")  # type: ignore[arg-type]
