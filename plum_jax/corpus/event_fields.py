"""What is known of an event beside its item, as buckets: the time since the one before, engagement, context, user."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl

from plum_jax import artifact
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import TRAIN, Split

GAP = "gap"
GAP_BUCKETS = 32
NUMBER_BUCKETS = 16
UNKNOWN = 0  # first of every field: a missing value, one that was not in training, or a user's first event


@dataclasses.dataclass(frozen=True, eq=False)
class EventFields:
    """Buckets of every event of a corpus.

    Attributes:
      buckets: int32 [E, F], of each field, by row of `corpus.events`.
      sizes: buckets of each field.
    """

    buckets: np.ndarray
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, split: Split, names: Sequence[str]) -> EventFields:
        """Fields by name: "gap", or a column of events (engagement, context) or of users.

        A gap is in bucket 1 + floor(log2(1 + seconds)), so that events of one time have one of their own, a minute, an
        hour and a day others; all are unknown where only the order is. Numbers are cut at quantiles of the training
        events, strings have a bucket for each value that those have.

        Raises:
          ValueError: no such field (the message names those that there are), or one without a value in training.
        """
        corpus = split.corpus
        columns = [_gaps(corpus) if name == GAP else _column(split, name) for name in names]
        sizes = tuple(size for _, size in columns)
        empty = np.zeros((corpus.num_events, 0), np.int32)
        return cls(np.stack([buckets for buckets, _ in columns], axis=1) if columns else empty, sizes)

    @property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self.buckets, self.sizes)


def gap_buckets(seconds: np.ndarray) -> np.ndarray:
    """int32, of gaps of any shape in seconds: 1 + floor(log2(1 + seconds)), at most `GAP_BUCKETS` - 1."""
    return np.minimum(1 + np.log2(1 + seconds.astype(np.float64)).astype(np.int32), GAP_BUCKETS - 1)


def _gaps(corpus: Corpus) -> tuple[np.ndarray, int]:
    if corpus.clock == "order":
        return np.full(corpus.num_events, UNKNOWN, np.int32), 1
    time = corpus.events["time"].to_numpy()
    first = np.diff(corpus.events["user"].to_numpy(), prepend=-1) != 0
    bucket = gap_buckets(np.where(first, 0, np.diff(time, prepend=0)))
    return np.where(first, UNKNOWN, bucket).astype(np.int32), GAP_BUCKETS


def _column(split: Split, name: str) -> tuple[np.ndarray, int]:
    corpus = split.corpus
    fixed = {"user", "item", "time", "fold"}
    if name in corpus.user_features:
        values = corpus.users[name].gather(corpus.events["user"])
    elif name in corpus.events.columns and name not in fixed:
        values = corpus.events[name]
    else:
        there = [GAP, *(column for column in corpus.events.columns if column not in fixed), *corpus.user_features]
        raise ValueError(f"corpus {corpus.name!r} has no field {name!r} of events; it has {', '.join(there)}")
    learnt = values.filter(pl.Series(split.fold == TRAIN)).drop_nulls()
    if not len(learnt):
        raise ValueError(f"field {name!r} of corpus {corpus.name!r} has no value in any training event: leave it out")
    if not values.dtype.is_numeric():
        known = learnt.cast(pl.String).unique().sort()
        found = known.search_sorted(values.cast(pl.String).fill_null("")).to_numpy()
        same = known.gather(np.minimum(found, max(len(known) - 1, 0))) == values.cast(pl.String)
        return np.where(same.fill_null(False).to_numpy(), 1 + found, UNKNOWN).astype(np.int32), 1 + len(known)
    edges = np.unique(np.quantile(learnt.to_numpy(), np.arange(1, NUMBER_BUCKETS) / NUMBER_BUCKETS))
    missing = values.is_null().to_numpy()
    bucket = 1 + np.searchsorted(edges, values.fill_null(0).to_numpy(), side="right")
    return np.where(missing, UNKNOWN, bucket).astype(np.int32), 2 + len(edges)
