"""What is read of a payment: windows strictly before, labels as late as they come, features as by hand; bad amounts."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from small_payments import PAYMENTS, SIMULATOR, SPLIT, TRUNK, payments

from plum_jax.corpus.event_fields import gap_buckets
from plum_jax.payments.boosting import handmade_features
from plum_jax.payments.events import DAY, KnownLabels, PaymentError
from plum_jax.payments.fields import hashed_row, names_of
from plum_jax.payments.past import Past
from plum_jax.payments.risk import known_numbers, known_risk

SOME = np.random.default_rng(0).integers(0, 1500, 40)


def test_windows_are_those_of_a_loop():
    random = np.random.default_rng(1)
    key, time = random.integers(0, 4, 200), random.integers(0, 60, 200)
    value = random.normal(size=200)
    past = Past(key, time, value=value)
    found, since = past.window(key, time - 9, time), past.since_last(key, time)
    for row in range(200):
        here = (key == key[row]) & (time >= time[row] - 9) & (time < time[row])
        assert found["count"][row] == here.sum()
        assert found["value"][row] == pytest.approx(value[here].sum(), abs=1e-9)
        before = time[(key == key[row]) & (time < time[row])]
        assert since[row] == (time[row] - before.max() if len(before) else -1)


def test_known_labels_are_as_late_as_they_come():
    events = payments()
    labels = KnownLabels(events, 0.5, seed=3)
    assert 0.3 < labels.known.mean() < 0.7
    found, item = known_risk(labels, "item", (1, 7)), events.key("item")
    for row in SOME:
        for place, days in enumerate((1, 7)):
            end = events.time[row] - 2 * DAY
            here = (item == item[row]) & labels.known & (events.time < end) & (events.time >= end - days * DAY)
            assert found[row, 2 * place] == here.sum()
            assert found[row, 2 * place + 1] == pytest.approx(events.fraud[here].mean() if here.any() else 0)
    assert known_numbers(labels).shape == (len(events.time), 12)
    # A label that is younger than the delay changes nothing.
    row = int(SOME[0])
    young = (events.time > events.time[row] - 2 * DAY) & (events.time <= events.time[row])
    other = dataclasses.replace(events, fraud=np.where(young, 1 - events.fraud, events.fraud))
    np.testing.assert_array_equal(known_risk(KnownLabels(other, 0.5, 3), "item", (1, 7))[row], found[row])


def test_who_trains_is_known_and_warm():
    events = payments()
    labels = KnownLabels(events, 0.5, seed=3)
    first = events.time.min() // DAY + 2
    expected = events.train & labels.known & (events.time // DAY >= first)
    np.testing.assert_array_equal(labels.training_rows, np.flatnonzero(expected))
    with pytest.raises(PaymentError, match=r"whose labels train .*, 50.00% of the customers\), got 0 frauds of"):
        KnownLabels(dataclasses.replace(events, fraud=np.zeros_like(events.fraud)), 0.5)
    with pytest.raises(PaymentError, match="share of labels above 0 and at most 1, got 0"):
        KnownLabels(events, 0)


def test_handmade_features_are_those_of_a_loop():
    events = payments()
    labels = KnownLabels(events)
    found, user, item = handmade_features(labels), events.key("user"), events.key("item")
    risk = np.concatenate([known_risk(labels, key) for key in ("item", "user")], axis=1)
    for row in SOME:
        time = events.time[row]
        moment = np.datetime64(int(time), "s").item()
        expected = [events.amount[row], moment.weekday() >= 5, moment.hour <= 6]
        for days in (1, 7, 30):
            here = (user == user[row]) & (events.time <= time) & (events.time >= time - days * DAY)
            expected += [here.sum(), events.amount[here].mean()]
        expected += risk[row].tolist()
        for seconds in (600, 3600):
            here = (item == item[row]) & (events.time < time) & (events.time >= time - seconds)
            expected += [here.sum(), events.amount[here].mean() if here.any() else 0]
        there = events.time[(user == user[row]) & (item == item[row]) & (events.time < time)]
        expected.append((time - there.max()) / DAY if len(there) and time - there.max() <= 30 * DAY else -1)
        np.testing.assert_allclose(found[row], expected, atol=1e-9)


@pytest.mark.parametrize("follow", ["user", "item"])
def test_fields_read_the_past_and_nothing_else(follow):
    events = payments()
    fields = TRUNK.fields.fit(events, follow)
    encoded = fields.of(events)
    own, other = events.key(follow), events.key("item" if follow == "user" else "user")
    log_amount = np.log1p(events.amount)
    for row in SOME:
        time = events.time[row]
        before = np.flatnonzero(
            (own == own[row]) & ((events.time < time) | ((events.time == time) & (np.arange(len(own)) < row)))
        )
        gap = gap_buckets(time - events.time[before].max()) if len(before) else 0
        theirs = events.time[(other == other[row]) & (events.time < time)]
        moment = np.datetime64(int(time), "s").item()
        last = gap_buckets(time - theirs.max()) if len(theirs) else 0
        pair = events.time[(other == other[row]) & (own == own[row]) & (events.time < time)]
        pair = pair[time - pair <= 5 * DAY]
        met = gap_buckets(time - pair.max()) if len(pair) else 0
        assert encoded.buckets[row, 1:].tolist() == [gap, moment.hour, moment.weekday(), last, met]
        numbers = [log_amount[row]]
        windows = [
            (other == other[row]) & (events.time < time) & (events.time >= time - w) for w in (600, DAY, 5 * DAY)
        ]
        numbers += [np.log1p(here.sum()) for here in windows]
        numbers += [log_amount[here].mean() - fields.mean_log_amount if here.any() else 0 for here in windows]
        scaled = (np.array(numbers) - fields.centre) / fields.spread
        np.testing.assert_allclose(encoded.numbers[row], scaled, atol=1e-4)
    train = encoded.numbers[events.train]
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-3)
    assert encoded.buckets[:, 0].min() == 1 and (encoded.buckets.max(axis=0) < fields.bucket_sizes).all()
    names = names_of(events, "item" if follow == "user" else "user")
    count = np.bincount(other[events.train], minlength=len(names))
    rows = np.array(fields.row_of)
    assert set(np.flatnonzero(rows >= 2)) <= set(np.argsort(-count, kind="stable")[:6])
    assert all(rows[i] == hashed_row(names[i], 2) for i in np.flatnonzero(rows < 2))
    assert fields.counterparty_rows == 8


def changed(column: str, row: int, value: float | None):
    corpus = SIMULATOR.read()
    series = corpus.events[column].cast(pl.Float64)
    events = corpus.events.with_columns(pl.Series(column, [*series[:row], value, *series[row + 1 :]], pl.Float64))
    return SPLIT.split(dataclasses.replace(corpus, events=events))


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("amount", float("nan"), "field 'amount' .* expected an amount of 0 or more, got nan for the payment of 'c"),
        ("amount", -3.0, "field 'amount' .* expected an amount of 0 or more, got -3 for the payment of 'c.* at 'm"),
        ("amount", None, "field 'amount' .* expected an amount of 0 or more, got nothing for the payment"),
        ("fraud", None, "field 'fraud' .* expected a label of 0 or 1, got nothing for the payment"),
        ("fraud", 2.0, "field 'fraud' .* expected a label of 0 or 1, got 2 for the payment"),
    ],
)
def test_bad_payments_are_named(column, value, said):
    with pytest.raises(PaymentError, match=said):
        PAYMENTS.of(changed(column, 5, value))


def test_folds_that_are_closer_than_the_delay_are_refused():
    with pytest.raises(PaymentError, match="known after 3 days, and the first payment of validation is 2.. days after"):
        dataclasses.replace(PAYMENTS, delay_days=3).of(SPLIT.split(SIMULATOR.read()))


def test_missing_columns_and_folds_without_frauds_are_named():
    split = SPLIT.split(SIMULATOR.read())
    with pytest.raises(
        PaymentError, match=r"no column 'price' \(amount\); its columns of events are amount, fraud, att"
    ):
        dataclasses.replace(PAYMENTS, amount="price").of(split)
    corpus = split.corpus
    late = corpus.events["time"].to_numpy() // DAY >= corpus.events["time"].min() // DAY + 30
    events = corpus.events.with_columns(fraud=np.where(late, 0, corpus.events["fraud"].to_numpy()))
    with pytest.raises(ValueError, match="fold 'test' of corpus .* labelled events are 0 by fraud >= 1"):
        PAYMENTS.of(SPLIT.split(dataclasses.replace(corpus, events=events)))
