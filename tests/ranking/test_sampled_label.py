"""A draw of the training events and the events of some users; behaviours keep their labels."""

import numpy as np
import planted_taste
import pytest

from plum_jax.corpus.splits import UserTime
from plum_jax.ranking.labels import Label
from plum_jax.ranking.sampled import SampledLabel


def test_some_events_train_and_whole_users_are_judged():
    split = UserTime().split(planted_taste.corpus())
    everything = Label().of(split)
    some = SampledLabel(training=50, users=7, seed=3).of(split)
    np.testing.assert_array_equal(some.label, everything.label)
    rows = some.rows["training"]
    assert len(rows) == 50 and (np.diff(rows) > 0).all() and np.isin(rows, everything.rows["training"]).all()
    assert not np.array_equal(rows, SampledLabel(training=50, users=7, seed=4).of(split).rows["training"])
    user = split.corpus.events["user"].to_numpy()
    for fold in ("validation", "test"):
        judged = np.unique(user[some.rows[fold]])
        assert len(judged) == 7 and judged[0] == 0 and judged[-1] == split.corpus.num_users - 1
        of_them = [row for row in everything.rows[fold] if user[row] in judged]
        np.testing.assert_array_equal(some.rows[fold], of_them)
    whole = SampledLabel().of(split)
    for fold in ("training", "validation", "test"):
        np.testing.assert_array_equal(whole.rows[fold], everything.rows[fold])
    with pytest.raises(ValueError, match="expected 2 to .* training events, as many as there are, got 1000000"):
        SampledLabel(training=1_000_000).of(split)
    with pytest.raises(ValueError, match="at least one user to judge, got 0"):
        SampledLabel(users=0).of(split)
