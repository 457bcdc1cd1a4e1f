"""Average precision and recall at a rate of false positives: against scikit-learn, plain loops, and repeated events."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from plum_jax.evaluation.metrics.detection import (
    Detection,
    Draws,
    average_precision,
    card_precision,
    interval,
    recall_at_false_positives,
)

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 2, 400) * RANDOM.integers(0, 2, 400)
SCORES = np.round(RANDOM.normal(LABELS, 1.0), 1)  # with ties
USERS = RANDOM.integers(0, 25, 400)


def test_average_precision_is_scikit_learns():
    assert average_precision(LABELS, SCORES) == pytest.approx(average_precision_score(LABELS, SCORES))


@pytest.mark.parametrize("rate", [0.0, 0.004, 0.05, 0.3, 1.0])
def test_recall_is_that_of_the_lowest_threshold_that_is_allowed(rate):
    allowed = [t for t in np.unique(SCORES) if (SCORES[LABELS == 0] >= t).mean() <= rate]
    expected = (SCORES[LABELS == 1] >= min(allowed)).mean() if allowed else 0.0
    assert recall_at_false_positives(LABELS, SCORES, rate) == pytest.approx(expected)
    threshold = Detection(LABELS, SCORES, USERS).threshold(rate)
    assert threshold == (min(allowed) if allowed else np.inf)


def test_a_user_who_counts_twice_is_two_users():
    times = RANDOM.integers(0, 3, 25).astype(float)
    found = Detection(LABELS, SCORES, USERS).figures(times, (0.05, 0.2))
    repeat = np.repeat(np.arange(400), times[USERS].astype(int))
    labels, scores = LABELS[repeat], SCORES[repeat]
    expected = [recall_at_false_positives(labels, scores, rate) for rate in (0.05, 0.2)]
    np.testing.assert_allclose(found, [average_precision_score(labels, scores), *expected])


def test_intervals_hold_the_figure_and_are_the_same_for_the_same_seed():
    detection = Detection(LABELS, SCORES, USERS)
    drawn = Draws(100, 3).figures(detection, (0.1,))
    np.testing.assert_array_equal(drawn, Draws(100, 3).figures(detection, (0.1,)))
    low, high = interval(drawn[:, 0])
    assert low < average_precision(LABELS, SCORES) < high
    assert np.isnan(interval(np.full(3, np.nan))).all()
    assert np.isnan(detection.figures(np.zeros(25), (0.1,))).all()


def test_card_precision_by_hand():
    labels, scores = np.array([0, 1, 0, 1, 0, 0]), np.array([0.9, 0.1, 0.5, 0.8, 0.7, 0.2])
    users, days = np.array([1, 1, 2, 1, 2, 3]), np.array([0, 0, 0, 1, 1, 1])
    # Day 0: user 1 (.9, a fraud), user 2 (.5). Day 1: user 1 (.8, a fraud), user 2 (.7), user 3 (.2).
    assert card_precision(labels, scores, users, days, 1) == 1.0
    assert card_precision(labels, scores, users, days, 2) == 0.5
    assert card_precision(labels, scores, users, days, 9) == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_one_label_is_refused():
    with pytest.raises(ValueError, match="expected both labels"):
        average_precision(np.zeros(5), np.arange(5.0))
