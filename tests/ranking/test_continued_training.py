"""Continued training: shares in time, statistics of the past, inherited parameters."""

import dataclasses

import jax
import numpy as np
import pytest
from planted_taste import LABEL, TRAINING, ranker, stages

from plum_jax.ranking import past
from plum_jax.ranking.networks.din import Din
from plum_jax.training.saved_params import load_params

SHORT = dataclasses.replace(TRAINING, steps=3)


def made(training, **changed):
    return dataclasses.replace(ranker(Din()), training=training, **changed)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stages(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def earlier(run):
    return made(SHORT, training_share=(0.0, 0.5)).fit(run, LABEL, "earlier")


def test_shares_are_parts_of_the_training_events_in_order_of_time(run):
    events = LABEL.of(run.split)
    time = run.corpus.events["time"].to_numpy()
    first, second = (past.training_share(events, share).rows["training"] for share in ((0.0, 0.4), (0.4, 1.0)))
    assert sorted([*first, *second]) == events.rows["training"].tolist()
    assert time[first].max() <= time[second].min()
    assert past.training_share(events, (0.4, 1.0)).rows["test"].tolist() == events.rows["test"].tolist()


def test_statistics_are_those_of_the_past_alone(run):
    events = past.training_share(LABEL.of(run.split), (0.0, 0.5))
    found, rows = past.past_statistics(events), events.rows["training"]
    assert found.names == ("user's mean label", "user's events", "item's mean label", "item's events")
    item, mean = run.corpus.events["item"].to_numpy(), events.label[rows].mean()
    own = {i: events.label[rows][item[rows] == i] for i in range(24)}
    shrunk = np.array([(own[i].sum() + 10 * mean) / (len(own[i]) + 10) for i in range(24)])
    bucket = {int(i): b for i, b in zip(item, found.buckets[:, 2], strict=True)}
    order = np.argsort(shrunk)
    assert (np.diff([bucket[int(i)] for i in order]) >= 0).all() and len({*bucket.values()}) > 8
    later = dataclasses.replace(events, label=np.where(np.isin(np.arange(len(item)), rows), events.label, 1))
    np.testing.assert_array_equal(past.past_statistics(later).buckets, found.buckets)


def test_it_begins_with_what_it_inherits(run, earlier):
    """Without a step: the same scores, also where it has statistics for further inputs, whose rows are zero."""
    still = dataclasses.replace(TRAINING, steps=0)
    later = made(still, training_share=(0.5, 1.0), warm_start="earlier")
    rows = np.arange(40, 200)
    same = later.fit(run, LABEL, "later")
    jax.tree.map(np.testing.assert_array_equal, same.params, earlier.params)
    np.testing.assert_array_equal(same.scores(rows), earlier.scores(rows))
    scratch = dataclasses.replace(later, warm_start=None).fit(run, LABEL, "scratch")
    assert np.abs(scratch.scores(rows) - earlier.scores(rows)).max() > 1e-4


def test_it_goes_on_learning_with_features_of_the_past(run, earlier):
    later = made(SHORT, training_share=(0.5, 1.0), warm_start="earlier", statistics=True)
    fitted = later.fit(run, LABEL, "both")
    assert fitted.columns.sizes.request == earlier.columns.sizes.request and len(fitted.columns.sizes.statistics) == 4
    still = dataclasses.replace(later, training=dataclasses.replace(TRAINING, steps=0)).fit(run, LABEL, "still")
    np.testing.assert_array_equal(still.scores(np.arange(40, 99)), earlier.scores(np.arange(40, 99)))
    assert np.isfinite(fitted.scores(np.arange(100))).all()
    start = load_params(run.directory / "rankers" / "earlier" / "params")
    moved = [
        np.abs(a - b).max()
        for a, b in zip(jax.tree.leaves(start["items"]), jax.tree.leaves(fitted.params["items"]), strict=True)
    ]
    assert 0 < max(moved) < 1


def test_what_cannot_be_continued_is_said(run):
    for changed, message in (
        ({"training_share": (0.5, 0.5)}, "expected training_share .* got"),
        ({"statistics": True}, "expected a training_share that begins after 0.0"),
        ({"warm_start": "nobody"}, "there is no trained ranker 'nobody' in .*: put it before in RANKERS"),
    ):
        with pytest.raises(ValueError, match=message):
            made(SHORT, **changed).fit(run, LABEL, "never")
