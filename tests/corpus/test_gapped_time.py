"""Cuts by time with gaps: every event in the fold of its day, and nothing learnt in the gaps."""

import numpy as np
import pytest

from plum_jax.corpus.sources.card_payments import CardPayments
from plum_jax.corpus.splits import NOT_LEARNT, TEST, TRAIN, VALIDATION, GappedTime, SplitError
from plum_jax.corpus.splits.split import FOLDS

CORPUS = CardPayments(num_cards=30, num_merchants=8, days=40).read()


def test_days_are_in_their_folds():
    split = GappedTime(train_days=15, gap_days=3, validation_days=5, test_days=8).split(CORPUS)
    day = CORPUS.events["time"].to_numpy() // 86_400
    expected = [TRAIN] * 15 + [NOT_LEARNT] * 3 + [VALIDATION] * 5 + [NOT_LEARNT] * 3 + [TEST] * 8 + [NOT_LEARNT] * 6
    np.testing.assert_array_equal(split.fold, np.array(expected)[day - day.min()])
    for name, number in FOLDS.items():
        rows = split.targets[name]
        assert (split.fold[rows] == number).all() and len(np.unique(CORPUS.events["user"].to_numpy()[rows])) == len(
            rows
        )


def test_what_cannot_be_cut_is_said():
    with pytest.raises(SplitError, match="no event is left for test: the test begins on day 45, and .* over 40 days"):
        GappedTime(train_days=30, gap_days=5, validation_days=5, test_days=8).split(CORPUS)
    with pytest.raises(SplitError, match="a day or more for each fold"):
        GappedTime(validation_days=0).split(CORPUS)
