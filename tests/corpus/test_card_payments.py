"""The simulator of card payments: what was planted is there, and the best detector's odds are the posterior."""

import dataclasses

import numpy as np
import pytest

from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources.card_payments import _DAY, _HOURS, _START, CardPayments

SMALL = CardPayments(num_cards=300, num_merchants=40, days=60, attack_every_days=10, attack_sizes=(3, 9))


def test_attacks_have_the_planted_sizes_amounts_and_gaps():
    events = SMALL.read().events
    attacks = events.filter(events["attack_size"] > 0).sort("item", "time")
    assert (events["fraud"] == (events["attack_size"] > 0)).all() and 0.01 < events["fraud"].mean() < 0.3
    counts = {size: attacks.filter(attacks["attack_size"] == size).height for size in (3, 9)}
    assert sum(counts.values()) == attacks.height and all(count % size == 0 for size, count in counts.items())
    assert np.log(attacks["amount"]).mean() == pytest.approx(SMALL.attack_amount_mean, abs=0.1)
    gaps = np.diff(attacks["time"]).clip(0)
    within = gaps[(np.diff(attacks["item"]) == 0) & (gaps < 3600 * 3)]
    assert within.mean() == pytest.approx(SMALL.attack_gap_seconds, rel=0.15)
    good = events.filter(events["attack_size"] == 0)
    assert good.height == pytest.approx(300 * 60 * 0.7, rel=0.15)


def test_equal_fields_give_equal_corpora_and_another_seed_others():
    assert SMALL.read().fingerprint == dataclasses.replace(SMALL).read().fingerprint
    assert SMALL.read().fingerprint != dataclasses.replace(SMALL, seed=1).read().fingerprint


def test_the_odds_are_those_of_a_plain_filter():
    """One merchant, payment by payment, states in a dictionary: payments of the attack that are still to come."""
    events, odds = SMALL.read().events, SMALL.attack_log_odds()
    merchant = 7
    rows = np.flatnonzero(events["item"].to_numpy() == merchant)
    rows = rows[np.lexsort((events["user"].to_numpy()[rows], events["time"].to_numpy()[rows]))]
    chances, before = {0: 1.0}, 0

    def density(x, mean, spread):
        return np.exp(-0.5 * ((x - mean) / spread) ** 2) / spread

    for row in rows.tolist():
        card, time = events["user"][row], events["time"][row] - _START
        x, wait = np.log(events["amount"][row]), events["time"][row] - _START - before
        hour = _HOURS[time // 3600 % 24] / _HOURS.mean()
        good = SMALL._rate[card] * SMALL._share[card, merchant] * hour
        good *= density(x, SMALL._card_mean[card], SMALL.amount_spread)
        bad = density(x, SMALL.attack_amount_mean, SMALL.attack_amount_spread) / SMALL.num_cards
        fraud, rest = {}, {}
        for left, chance in chances.items():
            rate = 1 / SMALL.attack_gap_seconds if left else 1 / (SMALL.attack_every_days * _DAY)
            chance *= np.exp(-wait * rate)
            rest[left] = rest.get(left, 0) + chance * good
            for after, share in ((left - 1, 1.0),) if left else [(size - 1, 0.5) for size in (3, 9)]:
                fraud[after] = fraud.get(after, 0) + chance * rate * share * bad
        assert odds[row] == pytest.approx(np.log(sum(fraud.values()) / sum(rest.values())), abs=1e-6)
        total = {left: fraud.get(left, 0) + rest.get(left, 0) for left in {*fraud, *rest}}
        chances = {left: value / sum(total.values()) for left, value in total.items()}
        before = time


def test_the_odds_are_calibrated():
    probability, fraud = 1 / (1 + np.exp(-SMALL.attack_log_odds())), SMALL.read().events["fraud"].to_numpy()
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.01)):
        here = (probability >= low) & (probability < high)
        error = np.sqrt((probability[here] * (1 - probability[here])).sum()) / here.sum()
        assert abs(probability[here].mean() - fraud[here].mean()) < 4 * error


@pytest.mark.parametrize(
    "wrong",
    [{"attack_sizes": ()}, {"anywhere": 0.0}, {"merchants_of_a_card": 41}, {"attack_gap_seconds": 0.0}, {"days": 0}],
)
def test_parameters_that_make_no_payments_are_refused(wrong):
    with pytest.raises(CorpusError, match="expected"):
        dataclasses.replace(SMALL, **wrong)
