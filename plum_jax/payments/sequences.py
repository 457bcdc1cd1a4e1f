"""Payments as sequences of a customer or of a merchant: packed rows that train, and columns of batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import polars as pl

from plum_jax.feeds.array_batches import ArrayBatches
from plum_jax.feeds.histories import event_windows, packed_rows
from plum_jax.feeds.item_columns import ItemColumns
from plum_jax.payments.events import Follow, PaymentEvents
from plum_jax.payments.fields import BUCKETS, Encoded, order_of


@dataclasses.dataclass(frozen=True, eq=False)
class Sequences:
    """The payments of each customer, or of each merchant, in order of time.

    Attributes:
      order: int64 [E], rows of `corpus.events`, sequence after sequence.
      starts: int64 [S], where each begins in `order`.
      lengths: int64 [S], of each sequence; those without payments are left out.
    """

    order: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, payments: PaymentEvents, follow: Follow, among: np.ndarray | None = None) -> Sequences:
        """Of all payments, or of some (bool [E])."""
        rows = np.arange(len(payments.time)) if among is None else np.flatnonzero(among)
        key = payments.key(follow)[rows]
        order = rows[order_of(key, payments.time[rows])]
        lengths = np.unique(key, return_counts=True)[1]
        return cls(order, np.cumsum(lengths) - lengths, lengths)

    def around(self, wanted: np.ndarray, seen: int) -> Sequences:
        """The same, each ended by the last of its payments that is wanted (bool [E]) and begun `seen` payments before
        the
        first: 0 long where none is wanted.
        """
        places, here = np.arange(len(self.order)), wanted[self.order]
        last = np.maximum.reduceat(np.where(here, places, -1), self.starts)
        first = np.minimum.reduceat(np.where(here, places, len(places)), self.starts)
        starts = np.maximum(self.starts, np.minimum(first, last) - seen)
        return Sequences(self.order, starts, np.where(last >= 0, last + 1 - starts, 0))


def training_rows(
    payments: PaymentEvents,
    follow: Follow,
    row_length: int,
    seed: int,
    used_by: str,
    learnt: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Packed rows of the training payments, each once: int32 [R, row_length] "events" (rows of `corpus.events`, 0 at
    padding), "next" (the payment behind each in its sequence; itself where there is none), "decoder_segment_ids",
    "decoder_positions", and float32 "next_weights" (0: none) and "learnt".

    Sequences are cut from their ends backwards, and what is cut off is not seen.

    Args:
      payments: all of them.
      follow: whose sequences.
      row_length: positions of a row, and of the longest window.
      seed: of the order of the rows.
      used_by: who learns from them, for the guard against leaks.
      learnt: bool [E], payments whose labels are learnt; rows without any are left out. None: all.
    """
    sequences = Sequences.of(payments, follow, payments.train)
    windows = event_windows(sequences.lengths.tolist(), row_length)
    if learnt is not None:
        wanted = learnt[sequences.order]
        windows = [window for window in windows if wanted[window].any()]
    rows = packed_rows([len(window) for window in windows], row_length, seed)
    places = np.concatenate([windows[number] for number in rows.pop("window")])
    real = rows["decoder_segment_ids"] > 0
    following = np.append(sequences.order[1:], 0)
    last = np.zeros(len(sequences.order), bool)
    last[np.cumsum(sequences.lengths) - 1] = True
    columns = {
        "events": sequences.order.astype(np.int32),
        "next": np.where(last, sequences.order, following).astype(np.int32),
        "next_weights": (~last).astype(np.float32),
        "learnt": np.ones(len(last), np.float32) if learnt is None else learnt[sequences.order].astype(np.float32),
    }
    for name, values in columns.items():
        rows[name] = np.zeros(real.shape, values.dtype)
        rows[name][real] = values[places]
    _guard(payments, rows["events"][real], used_by)
    return rows


def _guard(payments: PaymentEvents, rows: np.ndarray, used_by: str) -> None:
    read = np.unique(rows)
    events = payments.split.corpus.events[read].with_columns(pl.Series("event", read.astype(np.int64)))
    payments.split.check_no_leak(events, used_by=used_by)


def feed(
    rows: Mapping[str, np.ndarray], batch_size: int, seed: int, columns: Mapping[str, tuple[str, np.ndarray]]
) -> ItemColumns:
    """Batches of rows, reshuffled each epoch; further columns are looked up: name -> (column of payments, [E, ...])."""
    return ItemColumns(ArrayBatches(rows, min(batch_size, len(rows["events"])), seed), columns)


def read_columns(encoded: Encoded) -> dict[str, tuple[str, np.ndarray]]:
    """What a trunk reads of the payments of a batch."""
    return {name: ("events", getattr(encoded, name)) for name in ("buckets", "numbers", "counterparty")}


def next_columns(encoded: Encoded, fields: tuple[str, ...]) -> dict[str, tuple[str, np.ndarray]]:
    """What is foretold of the next payment."""
    found = {f"next_{name}": ("next", encoded.buckets[:, BUCKETS.index(name)]) for name in fields}
    return found | {"next_counterparty": ("next", encoded.counterparty)}
