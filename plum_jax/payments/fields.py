"""What is read of a payment: amount, gap, hour and weekday, its counterparty, and the counterparty's recent past."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from plum_jax import artifact
from plum_jax.corpus.event_fields import GAP_BUCKETS, Numbers, gap_buckets, quantile_edges
from plum_jax.payments.events import DAY, OTHER, Follow, PaymentEvents
from plum_jax.payments.past import Past

BUCKETS = ("amount", "gap", "hour", "weekday", "counterparty_gap", "pair_gap")  # columns of `Encoded.buckets`
_NONE = -1  # seconds: there is no event before
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday


class Encoded(NamedTuple):
    """Payments as a network reads them.

    Attributes:
      buckets: int32 [n, 6], in the order of `BUCKETS`.
      numbers: float32 [n, 1 + 2 W]: the log-amount, and of each window of the counterparty's past the log-count and how
        much the log-amounts were above the mean, of mean 0 and deviation 1 over training payments.
      counterparty: int32 [n], rows of the table of counterparties.
    """

    buckets: np.ndarray
    numbers: np.ndarray
    counterparty: np.ndarray


@dataclasses.dataclass(frozen=True)
class FieldsConfig:
    """How payments are read.

    Attributes:
      windows: seconds of the windows of the counterparty's past, which end strictly before the payment's second. What
        lies before the longest is forgotten of pairs of a customer and a merchant too.
      own_rows: counterparties with a row of their own, those with the most training payments.
      hashed_rows: rows that all others share by a hash of their name.
    """

    windows: tuple[int, ...] = (600, 3_600, DAY, 7 * DAY, 30 * DAY)
    own_rows: int = 20_000
    hashed_rows: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "windows", tuple(self.windows))
        if not self.windows or min(self.windows) < 1 or self.own_rows < 0 or self.hashed_rows < 1:
            raise ValueError(f"expected windows of a second or more, own_rows >= 0 and hashed_rows >= 1, got {self}")

    def fit(self, payments: PaymentEvents, follow: Follow) -> Fields:
        """Bucket edges, means and rows of the training payments, for sequences of customers or of merchants; the latest
        are kept, for several models read the same.
        """
        return _fitted(self, payments, follow)

    def _fit(self, payments: PaymentEvents, follow: Follow) -> Fields:
        train = payments.train
        log_amount = np.log1p(payments.amount)
        base = Fields(
            config=self,
            follow=follow,
            amount=Numbers(quantile_edges(log_amount[train])),
            mean_log_amount=float(log_amount[train].mean()),
            centre=(0.0,) * (1 + 2 * len(self.windows)),
            spread=(1.0,) * (1 + 2 * len(self.windows)),
            row_of=self._rows(payments, OTHER[follow]),
        )
        numbers = base._of(payments).numbers[train].astype(np.float64)
        spread = numbers.std(axis=0)
        return dataclasses.replace(
            base,
            centre=tuple(numbers.mean(axis=0).tolist()),
            spread=tuple(np.where(spread > 0, spread, 1.0).tolist()),
        )

    def _rows(self, payments: PaymentEvents, key: Follow) -> tuple[int, ...]:
        """Row of each counterparty of the corpus: hashed rows first, then those of one's own."""
        names = names_of(payments, key)
        count = np.bincount(payments.key(key)[payments.train], minlength=len(names))
        most = np.argsort(-count, kind="stable")[: self.own_rows]
        rows = np.array([hashed_row(name, self.hashed_rows) for name in names], np.int64)
        most = most[count[most] > 0]
        rows[most] = self.hashed_rows + np.arange(len(most))
        return tuple(rows.tolist())


@dataclasses.dataclass(frozen=True)
class Fields:
    """`FieldsConfig` fitted to training payments.

    Attributes:
      config: windows and rows.
      follow: whose sequences they are for: gaps are within these, and the other key is the counterparty.
      amount: buckets of log-amounts, log(1 + amount).
      mean_log_amount: of training payments.
      centre, spread: of the numbers, over training payments.
      row_of: of each counterparty of the corpus, its row in the table.
    """

    config: FieldsConfig
    follow: Follow
    amount: Numbers
    mean_log_amount: float
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    row_of: tuple[int, ...]

    @property
    def bucket_sizes(self) -> tuple[int, ...]:
        """Of each of `BUCKETS`."""
        return (self.amount.size, GAP_BUCKETS, 24, 7, GAP_BUCKETS, GAP_BUCKETS)

    @property
    def counterparty_rows(self) -> int:
        """Of the table of counterparties."""
        return self.config.hashed_rows + len([row for row in self.row_of if row >= self.config.hashed_rows])

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self)

    def of(self, payments: PaymentEvents) -> Encoded:
        """All payments of a corpus; the latest ones are kept, for several models read the same."""
        return _encoded(self, payments)

    def _of(self, payments: PaymentEvents) -> Encoded:
        own, other = payments.key(self.follow), payments.key(OTHER[self.follow])
        time, log_amount = payments.time, np.log1p(payments.amount)
        past = Past(other, time, log_amount=log_amount)
        windows = [past.window(other, time - length, time) for length in self.config.windows]
        pair = own.astype(np.int64) * payments.num_keys(OTHER[self.follow]) + other
        pair_gap = Past(pair, time).since_last(pair, time)
        return self.encode(
            payments.amount,
            time,
            gaps(own, time),
            np.asarray(self.row_of)[other],
            past.since_last(other, time),
            np.where(pair_gap > max(self.config.windows), _NONE, pair_gap),
            np.stack([window["count"] for window in windows], axis=1),
            np.stack([window["log_amount"] for window in windows], axis=1),
        )

    def encode(
        self,
        amount: np.ndarray,
        time: np.ndarray,
        gap: np.ndarray,
        counterparty: np.ndarray,
        counterparty_gap: np.ndarray,
        pair_gap: np.ndarray,
        counts: np.ndarray,
        sums: np.ndarray,
    ) -> Encoded:
        """Payments from what is known of them.

        Args:
          amount: float [n].
          time: int64 [n], unix seconds.
          gap: int64 [n], seconds since the payment before of the same sequence; -1: it is the first.
          counterparty: int [n], its row of the table.
          counterparty_gap: int64 [n], seconds since its last payment strictly before; -1: none.
          pair_gap: int64 [n], seconds since the last one of the same customer at the same merchant strictly before; -1:
            none within the longest window.
          counts, sums: float [n, W], payments of its past in each window, and the sum of their log-amounts.
        """
        log_amount = np.log1p(amount)
        above = sums / np.maximum(counts, 1) - self.mean_log_amount * (counts > 0)
        numbers = np.concatenate([log_amount[:, None], np.log1p(counts), above], axis=1)
        buckets = np.stack(
            [
                self.amount.buckets(pl.Series(log_amount)),
                np.where(gap == _NONE, 0, gap_buckets(gap)),
                time // 3600 % 24,
                (time // DAY + _EPOCH_WEEKDAY) % 7,
                np.where(counterparty_gap == _NONE, 0, gap_buckets(counterparty_gap)),
                np.where(pair_gap == _NONE, 0, gap_buckets(pair_gap)),
            ],
            axis=1,
        )
        scaled = (numbers - np.array(self.centre)) / np.array(self.spread)
        return Encoded(buckets.astype(np.int32), scaled.astype(np.float32), counterparty.astype(np.int32))


@functools.lru_cache(maxsize=4)
def _fitted(config: FieldsConfig, payments: PaymentEvents, follow: Follow) -> Fields:
    return config._fit(payments, follow)


@functools.lru_cache(maxsize=2)
def _encoded(fields: Fields, payments: PaymentEvents) -> Encoded:
    return fields._of(payments)


def names_of(payments: PaymentEvents, key: Follow) -> Sequence[str]:
    """Of all customers, or of all merchants."""
    corpus = payments.split.corpus
    return (corpus.users["user_id"] if key == "user" else corpus.items["item_id"]).to_list()


def hashed_row(name: str, rows: int) -> int:
    """The shared row of a name, the same on every machine."""
    return zlib.crc32(name.encode()) % rows


def order_of(key: np.ndarray, time: np.ndarray) -> np.ndarray:
    """int64 [E], events by key and time, ties in the order of the rows."""
    return np.lexsort((time, key))


def gaps(key: np.ndarray, time: np.ndarray) -> np.ndarray:
    """int64 [E], seconds since the key's event before in `order_of`; -1: it is the first."""
    order = order_of(key, time)
    found = np.empty(len(key), np.int64)
    found[order] = np.where(np.diff(key[order], prepend=-1) == 0, np.diff(time[order], prepend=0), _NONE)
    return found
