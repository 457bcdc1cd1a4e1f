"""Simulated payments of cards at merchants with planted card-testing attacks, and the best detector there can be.

Each card pays as a Poisson process: a rate of its own, the hours of the day alike for all, mostly at a few merchants of
its own and else anywhere, and log-amounts around a mean of its own. At each merchant attacks begin after waits that are
exponential; an attack has one of the planted sizes, as many payments by cards drawn at random (with replacement), short
exponential gaps between them and small amounts. The next wait begins when the attack ends. (Stripe's card testing: many
cards tried with small amounts at one merchant.)

A merchant is therefore in one of few states, "no attack" or "so many payments of an attack are still to come", and the
probability that a payment is of an attack, given all payments of the merchant up to it, is computed exactly by the
forward filter of `attack_log_odds`. No detector that knows a merchant's past, the cards and nothing of the future
orders payments better in expectation.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import polars as pl

from plum_jax.corpus.schema import Corpus, CorpusError
from plum_jax.corpus.sources.simulator_words import numbered_ids

_START = 1_577_836_800  # 2020-01-01, a Wednesday
_DAY = 86_400
# Payments by hour of the day: few at night, most in the afternoon.
_HOURS = np.array([1, 1, 1, 1, 1, 2, 4, 8, 12, 14, 15, 16, 17, 16, 15, 15, 16, 18, 18, 15, 11, 7, 4, 2], np.float64)


@dataclasses.dataclass(frozen=True)
class CardPayments:
    """Payments of cards at merchants; see the module for how they come about.

    Attributes:
      num_cards, num_merchants: how many.
      days: of payments.
      payments_a_day: mean over cards; a card's own rate is gamma distributed (shape 2).
      merchants_of_a_card: its own, drawn by popularity, their shares falling as 1 / rank.
      anywhere: share of a card's payments that are at any merchant, by popularity.
      zipf_exponent: popularity of the r-th merchant is r^-zipf_exponent.
      amount_mean, amount_spread, card_spread: of log-amounts: the mean over cards, the deviation of a card's payments,
        and that of the cards' means.
      attack_every_days: mean wait for an attack, at each merchant.
      attack_sizes: payments of an attack, each size as likely as the others.
      attack_gap_seconds: mean gap between the payments of an attack.
      attack_amount_mean, attack_amount_spread: of their log-amounts.
      seed: of everything.
    """

    num_cards: int = 2000
    num_merchants: int = 200
    days: int = 91
    payments_a_day: float = 0.7
    merchants_of_a_card: int = 8
    anywhere: float = 0.5
    zipf_exponent: float = 0.7
    amount_mean: float = 3.0
    amount_spread: float = 0.9
    card_spread: float = 0.4
    attack_every_days: float = 75.0
    attack_sizes: tuple[int, ...] = (4, 8, 16, 32)
    attack_gap_seconds: float = 600.0
    attack_amount_mean: float = 1.5
    attack_amount_spread: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "attack_sizes", tuple(self.attack_sizes))
        if min(self.num_cards, self.num_merchants, self.days, self.merchants_of_a_card) < 1:
            raise CorpusError(f"expected a card, a merchant, a day and a merchant of a card at least, got {self}")
        if self.merchants_of_a_card > self.num_merchants:
            raise CorpusError(f"expected {self.merchants_of_a_card=} of {self.num_merchants=} at most")
        positive = (self.payments_a_day, self.amount_spread, self.attack_every_days, self.attack_gap_seconds)
        if min(*positive, self.attack_amount_spread) <= 0 or self.card_spread < 0:
            raise CorpusError(f"expected rates, gaps and spreads above 0, got {self}")
        if not 0 < self.anywhere <= 1:
            raise CorpusError(f"expected anywhere above 0 and at most 1, got {self.anywhere}")
        if not self.attack_sizes or min(self.attack_sizes) < 1:
            raise CorpusError(f"expected attack_sizes of 1 payment or more, got {self.attack_sizes}")

    def inputs(self) -> dict[str, str]:
        """Nothing: the fields say it all."""
        return {}

    def read(self) -> Corpus:
        """Simulates. "amount" is in cents' precision, "fraud" 0 or 1, "attack_size" that of the payment's attack (0:
        none).

        Equal fields give equal corpora.
        """
        events = self._events
        return Corpus(
            name=f"card_payments-{self.num_cards}x{self.num_merchants}",
            items=pl.DataFrame({"item_id": numbered_ids("m", self.num_merchants)}),
            users=pl.DataFrame({"user_id": numbered_ids("c", self.num_cards)}),
            events=events.drop("log_odds"),
            context_features=("amount", "fraud", "attack_size"),
        )

    def attack_log_odds(self) -> np.ndarray:
        """float64 [E], by row of the corpus's events: log-odds that a payment is of an attack, given those of its
        merchant up to it; the exact posterior under the simulator itself.
        """
        return self._events["log_odds"].to_numpy()

    def _random(self, what: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *what.encode()])

    @functools.cached_property
    def _rate(self) -> np.ndarray:
        """[C] payments a second, over a day."""
        return self._random("rates").gamma(2.0, self.payments_a_day / 2.0, self.num_cards) / _DAY

    @functools.cached_property
    def _card_mean(self) -> np.ndarray:
        """[C] of log-amounts."""
        return self._random("amounts").normal(self.amount_mean, self.card_spread, self.num_cards)

    @functools.cached_property
    def _share(self) -> np.ndarray:
        """[C, M] of a card's payments at each merchant."""
        random = self._random("merchants")
        popularity = np.arange(1, self.num_merchants + 1.0) ** -self.zipf_exponent
        # The largest of log-weights with Gumbel noise are a draw without replacement.
        noisy = np.log(popularity) + random.gumbel(size=(self.num_cards, self.num_merchants))
        chosen = np.argsort(-noisy, axis=1)[:, : self.merchants_of_a_card]
        weights = 1.0 / np.arange(1, self.merchants_of_a_card + 1)
        share = np.zeros((self.num_cards, self.num_merchants))
        np.put_along_axis(share, chosen, np.broadcast_to(weights / weights.sum(), chosen.shape), axis=1)
        return self.anywhere * popularity / popularity.sum() + (1 - self.anywhere) * share

    @functools.cached_property
    def _events(self) -> pl.DataFrame:
        """Events of a Corpus, and "log_odds"."""
        good, attacks = self._good_payments(), self._attacks()
        parts = {name: np.concatenate([good[name], attacks[name]]) for name in good}
        # The filter sees what the table shows: whole seconds and cents.
        parts["amount"] = np.maximum(np.round(np.exp(parts.pop("log_amount")), 2), 0.01)
        order = np.lexsort((parts["time"], parts["user"]))
        parts = {name: values[order] for name, values in parts.items()}
        return pl.DataFrame(
            {
                "user": parts["user"].astype(np.int32),
                "item": parts["item"].astype(np.int32),
                "time": parts["time"] + _START,
                "amount": parts["amount"],
                "fraud": (parts["attack_size"] > 0).astype(np.int64),
                "attack_size": parts["attack_size"],
                "log_odds": self._log_odds(parts),
            }
        )

    def _good_payments(self) -> dict[str, np.ndarray]:
        random = self._random("payments")
        counts = random.poisson(self._rate * self.days * _DAY)
        card = np.repeat(np.arange(self.num_cards), counts)
        hour = random.choice(24, size=len(card), p=_HOURS / _HOURS.sum())
        time = random.integers(self.days, size=len(card)) * _DAY + hour * 3600 + random.integers(3600, size=len(card))
        place = random.random(len(card))
        cumulative = np.cumsum(self._share, axis=1)
        merchant = np.array([np.searchsorted(cumulative[c], p, side="right") for c, p in zip(card, place, strict=True)])
        merchant = np.minimum(merchant, self.num_merchants - 1).astype(np.int64)
        log_amount = random.normal(self._card_mean[card], self.amount_spread)
        size = np.zeros(len(card), np.int64)
        return {"user": card, "item": merchant, "time": time, "log_amount": log_amount, "attack_size": size}

    def _attacks(self) -> dict[str, np.ndarray]:
        random, end = self._random("attacks"), self.days * _DAY
        found: dict[str, list[np.ndarray]] = {"item": [], "time": [], "attack_size": []}
        for merchant in range(self.num_merchants):
            now = random.exponential(self.attack_every_days * _DAY)
            while now < end:
                size = int(random.choice(self.attack_sizes))
                times = now + np.cumsum(np.r_[0.0, random.exponential(self.attack_gap_seconds, size - 1)])
                found["time"].append(times.astype(np.int64))
                found["item"].append(np.full(size, merchant))
                found["attack_size"].append(np.full(size, size))
                now = times[-1] + random.exponential(self.attack_every_days * _DAY)
        laid: dict[str, np.ndarray] = {
            name: np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64) for name, parts in found.items()
        }
        count = len(laid["time"])
        laid["user"] = random.integers(self.num_cards, size=count)
        laid["log_amount"] = random.normal(self.attack_amount_mean, self.attack_amount_spread, count)
        return laid

    def _log_odds(self, events: dict[str, np.ndarray]) -> np.ndarray:
        """The forward filter of all merchants at once, the n-th payment of each in step n."""
        order = np.lexsort((events["user"], events["time"], events["item"]))
        item, time, card = (events[name][order] for name in ("item", "time", "user"))
        log_amount = np.log(events["amount"][order])
        starts = np.flatnonzero(np.diff(item, prepend=-1))
        counts = np.diff(np.append(starts, len(item)))
        hours = _HOURS / _HOURS.mean()
        good = self._rate[card] * self._share[card, item] * hours[time // 3600 % 24]
        good *= _normal(log_amount, self._card_mean[card], self.amount_spread)
        bad = _normal(log_amount, self.attack_amount_mean, self.attack_amount_spread) / self.num_cards
        begin, go_on = 1 / (self.attack_every_days * _DAY), 1 / self.attack_gap_seconds
        most = max(self.attack_sizes)
        left = np.zeros(most)  # of an attack that has just begun
        np.add.at(left, np.array(self.attack_sizes) - 1, 1 / len(self.attack_sizes))
        state = np.zeros((len(starts), most))  # [merchants with payments, payments of an attack still to come]
        state[:, 0], before, odds = 1.0, np.zeros(len(starts)), np.empty(len(item))
        for step in range(int(counts.max(initial=0))):
            here = np.flatnonzero(counts > step)
            rows = starts[here] + step
            wait = (time[rows] - before[here])[:, None]
            now = state[here] * np.exp(-wait * np.where(np.arange(most) == 0, begin, go_on))
            fraud = now[:, :1] * begin * left
            fraud[:, :-1] += now[:, 1:] * go_on
            fraud, rest = fraud * bad[rows, None], now * good[rows, None]
            chances = fraud.sum(axis=1), rest.sum(axis=1)
            with np.errstate(divide="ignore"):
                odds[rows] = np.clip(np.log(chances[0]) - np.log(chances[1]), -700, 700)
            total = fraud + rest
            state[here], before[here] = total / total.sum(axis=1, keepdims=True), time[rows]
        found = np.empty(len(item))
        found[order] = odds
        return found


def _normal(x: np.ndarray, mean: np.ndarray | float, spread: float) -> np.ndarray:
    """Density, less a constant factor that is the same for all."""
    return np.exp(-0.5 * ((x - mean) / spread) ** 2) / spread
