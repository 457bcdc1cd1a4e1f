"""Payments: which columns of a corpus are what, and whose labels are known when."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import polars as pl

from plum_jax import artifact
from plum_jax.corpus.splits import FOLDS, TRAIN, Split
from plum_jax.ranking.labels import Label, LabelledEvents

Follow = Literal["user", "item"]
OTHER: Mapping[str, Follow] = {"user": "item", "item": "user"}
DAY = 86_400


class PaymentError(ValueError):
    """Payments that are not as they must be: says which one, and what to do."""


@dataclasses.dataclass(frozen=True)
class Payments:
    """Roles of the columns of a corpus of payments: its users are cards or customers, its items merchants or terminals.

    Attributes:
      amount: column of numbers, 0 or more.
      label: column of 0 and 1, 1 for a fraud.
      kind: column that says of which kind a fraud is, 0 for none: an answer, for tables, and never an input; None:
        none.
      delay_days: how long it takes until a payment's label is known: no feature of a payment reads a label that is
        younger. The split's gap is as long.
      warm_up_days: payments of so many first days train no detector: their windows of the past are not full yet.
    """

    amount: str = "amount"
    label: str = "fraud"
    kind: str | None = None
    delay_days: float = 7.0
    warm_up_days: int = 37

    def __post_init__(self) -> None:
        if self.delay_days < 0 or self.warm_up_days < 0:
            raise PaymentError(f"expected days of 0 or more, got {self.delay_days=} {self.warm_up_days=}")

    def of(self, split: Split) -> PaymentEvents:
        """The payments of a split.

        Raises:
          PaymentError: a column that is not there, an amount that is missing, negative or not finite, or a label that
            is missing; folds that are closer than the delay.
          ValueError: a fold that lacks frauds, or has nothing else.
        """
        events = split.corpus.events
        for role, column in (("amount", self.amount), ("label", self.label), ("kind", self.kind)):
            if column is not None and column not in split.corpus.context_features:
                raise PaymentError(
                    f"corpus {split.corpus.name!r} has no column {column!r} ({role}); its columns of events are "
                    f"{', '.join(split.corpus.context_features) or 'none'}: name it in table.Table.context_features "
                    f"and numbers, or set events.Payments.{role}"
                )
        found = PaymentEvents(
            config=self,
            split=split,
            amount=_numbers(split, self.amount, "an amount of 0 or more", lambda x: np.isfinite(x) & (x >= 0)),
            fraud=_numbers(split, self.label, "a label of 0 or 1", lambda x: np.isin(x, (0, 1))).astype(np.int8),
            kind=None if self.kind is None else events[self.kind].fill_null(0).to_numpy().astype(np.int64),
        )
        _require_gaps(found)
        _ = found.labelled  # a fold without frauds is said now, not after hours of training
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class PaymentEvents:
    """All payments of a corpus, by row of `corpus.events` (customers together, in order of time).

    Attributes:
      config: roles and delay.
      split: folds.
      amount: float64 [E].
      fraud: int8 [E].
      kind: int64 [E], 0 for no fraud; None where it is not told.
    """

    config: Payments
    split: Split
    amount: np.ndarray
    fraud: np.ndarray
    kind: np.ndarray | None

    @functools.cached_property
    def time(self) -> np.ndarray:
        """int64 [E], unix seconds."""
        return self.split.corpus.events["time"].to_numpy()

    def key(self, follow: Follow) -> np.ndarray:
        """int32 [E], the customer ("user") or the merchant ("item") of each payment."""
        return self.split.corpus.events[follow].to_numpy()

    def num_keys(self, follow: Follow) -> int:
        """How many there are."""
        return self.split.corpus.num_users if follow == "user" else self.split.corpus.num_items

    @functools.cached_property
    def train(self) -> np.ndarray:
        """bool [E], payments of the training fold: what may be learnt from without a label."""
        return self.split.fold == TRAIN

    @functools.cached_property
    def labelled(self) -> LabelledEvents:
        """Labels of all folds; raises where a fold has no fraud."""
        return Label(self.config.label, 1).of(self.split)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of payments, folds and roles."""
        return artifact.fingerprint(self.split.fingerprint, self.config)


@dataclasses.dataclass(frozen=True, eq=False)
class KnownLabels:
    """Payments, and whose labels are ever known to a detector.

    Attributes:
      payments: all of them.
      share: of the customers, drawn at random, whose labels are known: they alone train detectors and are counted in
        features of labels. Evaluations have all labels.
      seed: of that draw.
    """

    payments: PaymentEvents
    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise PaymentError(f"expected a share of labels above 0 and at most 1, got {self.share}")
        rows = self.training_rows
        frauds = int(self.payments.fraud[rows].sum())
        if not 0 < frauds < len(rows):
            raise PaymentError(
                f"expected frauds and other payments among those whose labels train (training fold, after "
                f"{self.payments.config.warm_up_days} days, {self.share:.2%} of the customers), got {frauds} frauds of "
                f"{len(rows):,} payments: take a larger share of labels, fewer warm_up_days, or another split"
            )

    @functools.cached_property
    def known(self) -> np.ndarray:
        """bool [E], whether the payment is of a customer who was drawn."""
        users = self.payments.split.corpus.num_users
        drawn = np.zeros(users, bool)
        count = max(1, round(self.share * users))
        drawn[np.random.default_rng([self.seed, 17]).permutation(users)[:count]] = True
        return drawn[self.payments.key("user")]

    @functools.cached_property
    def training_rows(self) -> np.ndarray:
        """int64 [n], ascending: payments whose labels train detectors."""
        payments = self.payments
        day = payments.time // DAY
        return np.flatnonzero(payments.train & self.known & (day >= day.min() + payments.config.warm_up_days))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the payments and of whose labels are known."""
        return artifact.fingerprint(self.payments.fingerprint, self.share, self.seed)


def _require_gaps(payments: PaymentEvents) -> None:
    """Labels of a fold are known when the next one begins: nobody learns from a label that has not come."""
    delay = payments.config.delay_days
    for (earlier, first), (later, second) in itertools.pairwise({"training": TRAIN, **FOLDS}.items()):
        gap = payments.time[payments.split.fold == second].min() - payments.time[payments.split.fold == first].max()
        if gap < delay * DAY:
            raise PaymentError(
                f"labels are known after {delay:g} days, and the first payment of {later} is {gap / DAY:.1f} days "
                f"after the last one of {earlier}: expected a split with gaps, such as splits.GappedTime(gap_days="
                f"{math.ceil(delay)})"
            )


def _numbers(split: Split, column: str, expected: str, good) -> np.ndarray:  # type: ignore[no-untyped-def]
    """float64 [E] of a column."""
    series = split.corpus.events[column]
    if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        raise PaymentError(
            f"column {column!r} of corpus {split.corpus.name!r} is {series.dtype}, expected numbers: name it in "
            "table.Table.numbers"
        )
    values = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    bad = np.flatnonzero(~good(values))
    if len(bad):
        corpus, row = split.corpus, int(bad[0])
        event = corpus.events.row(row, named=True)
        told = "nothing" if np.isnan(values[row]) and series.is_null()[row] else f"{values[row]:g}"
        many = f" ({len(bad)} payments like it)" if len(bad) > 1 else ""
        raise PaymentError(
            f"field {column!r} of corpus {corpus.name!r}{many}: expected {expected}, got {told} for the payment of "
            f"{corpus.users['user_id'][event['user']]!r} at {corpus.items['item_id'][event['item']]!r} at "
            f"{np.datetime64(event['time'], 's')}: mend or leave out the row"
        )
    return values
