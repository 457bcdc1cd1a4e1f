"""What is known of an event beside its item, as buckets: the time since the one before, the hour and the day of the
week, engagement, context, user, category of the item.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from plum_jax import artifact
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import TRAIN, Split

GAP = "gap"
HOUR, WEEKDAY = "hour", "weekday"  # of the time in UTC; 1 is Monday
GAP_BUCKETS = 32
NUMBER_BUCKETS = 16
WORDS = "words:"  # before the name of a column whose words are fields of their own, e.g. those of a query
WORDS_READ = 6  # of each event, the first ones
UNKNOWN = 0  # first of every field: a missing value, one that was not in training, or a user's first event


@dataclasses.dataclass(frozen=True)
class Gaps:
    """Seconds since the same user's event before, as `gap_buckets`."""

    size: int = GAP_BUCKETS

    def buckets(self, values: pl.Series) -> np.ndarray:
        """int32 [n] of seconds; null: unknown."""
        seconds = values.cast(pl.Float64).fill_null(0).to_numpy()
        return np.where(values.is_null().to_numpy(), UNKNOWN, np.minimum(gap_buckets(seconds), self.size - 1))


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Numbers, cut at quantiles of the training events.

    Attributes:
      edges: ascending; a value that is an edge lies above it.
    """

    edges: tuple[float, ...]

    @property
    def size(self) -> int:
        return 2 + len(self.edges)

    def buckets(self, values: pl.Series) -> np.ndarray:
        """int32 [n]; null: unknown."""
        found = 1 + np.searchsorted(np.array(self.edges), values.fill_null(0).to_numpy(), side="right")
        return np.where(values.is_null().to_numpy(), UNKNOWN, found).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Words:
    """Strings, a bucket for each that the training events have.

    Attributes:
      known: sorted.
    """

    known: tuple[str, ...]

    @property
    def size(self) -> int:
        return 1 + len(self.known)

    def buckets(self, values: pl.Series) -> np.ndarray:
        """int32 [n]; null, or not in training: unknown."""
        places = {value: place for place, value in enumerate(self.known, start=1)}
        strings = values.cast(pl.String)
        return strings.replace_strict(places, default=UNKNOWN, return_dtype=pl.Int32).fill_null(UNKNOWN).to_numpy()


def gap_buckets(seconds: np.ndarray) -> np.ndarray:
    """int32, of gaps of any shape in seconds: 1 + floor(log2(1 + seconds)), at most `GAP_BUCKETS` - 1, so that
    events of one time have a bucket of their own, a minute, an hour and a day others.
    """
    return np.minimum(1 + np.log2(1 + np.maximum(seconds, 0).astype(np.float64)).astype(np.int32), GAP_BUCKETS - 1)


Field = Gaps | Numbers | Words


@dataclasses.dataclass(frozen=True, eq=False)
class EventFields:
    """Buckets of every event of a corpus.

    Attributes:
      names: of the fields.
      fields: how each is cut into buckets.
      buckets: int32 [E, F], of each field, by row of `corpus.events`.
    """

    names: tuple[str, ...]
    fields: tuple[Field, ...]
    buckets: np.ndarray

    @classmethod
    def of(cls, split: Split, names: Sequence[str]) -> EventFields:
        """Fields by name: "gap", "hour", "weekday", or a column of events (engagement, context), of users, or a
        category of items (the first, where an item has several). "words:query" is the words of a column, a field for
        each place (`words_at`).

        Gaps are all unknown where only the order is known.

        Raises:
          ValueError: no such field (the message names those that there are), one without a value in training, or an
            hour where times are not absolute.
        """
        train, found = pl.Series(split.fold == TRAIN), []
        for name in names:
            values = _values(split.corpus, name.removeprefix(WORDS))
            if name.startswith(WORDS):
                places = words_at(values)
                field = _field(split.corpus, name, pl.concat(places.values()).filter(pl.concat([train] * WORDS_READ)))
                found += [(f"{name}{place}", field, words) for place, words in places.items()]
            else:
                found.append((name, _field(split.corpus, name, values.filter(train)), values))
        buckets = [field.buckets(values) for _, field, values in found]
        empty = np.zeros((split.corpus.num_events, 0), np.int32)
        stacked = np.stack(buckets, axis=1) if buckets else empty
        return cls(tuple(name for name, _, _ in found), tuple(field for _, field, _ in found), stacked)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Buckets of each field."""
        return tuple(field.size for field in self.fields)

    @property
    def unknown(self) -> dict[str, int]:
        """Events in the unknown bucket, by field; those without any are left out."""
        counts = (self.buckets == UNKNOWN).sum(axis=0).tolist()
        return {name: count for name, count in zip(self.names, counts, strict=True) if count}

    def asked(self, values: Mapping[str, Any]) -> np.ndarray:
        """int32 [F], buckets of an event that is not there but asked for: {"rating": 5}; what is not said is unknown.

        Raises:
          ValueError: no such field here, or a value that no training event has.
        """
        values = {
            f"{name}{place}": word
            for name, value in values.items()
            for place, word in (_asked_words(value) if name.startswith(WORDS) else {"": value}).items()
        }
        other = sorted(set(values) - set(self.names))
        if other:
            raise ValueError(f"expected values of fields among {list(self.names)}, got {other}: {dict(values)}")
        buckets = np.full(len(self.names), UNKNOWN, np.int32)
        for place, (name, field) in enumerate(zip(self.names, self.fields, strict=True)):
            if name in values:
                dtype = pl.String if isinstance(field, Words) else pl.Float64
                buckets[place] = field.buckets(pl.Series([values[name]]).cast(dtype, strict=False))[0]
                if buckets[place] == UNKNOWN:
                    there = f"one of {list(field.known)}" if isinstance(field, Words) else "a number"
                    raise ValueError(f"field {name!r}: expected {there}, got {values[name]!r}")
        return buckets

    @property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self.buckets, self.sizes)


def _values(corpus: Corpus, name: str) -> pl.Series:
    """Of a field, by row of `corpus.events`."""
    fixed = {"user", "item", "time", "fold"}
    if name == GAP:
        return _gaps(corpus)
    if name in corpus.user_features:
        return corpus.users[name].gather(corpus.events["user"])
    if name in corpus.events.columns and name not in fixed:
        return corpus.events[name]
    if name in corpus.item_features:
        values = corpus.items[name]
        first = values.list.get(0, null_on_oob=True) if isinstance(values.dtype, pl.List) else values
        return first.gather(corpus.events["item"])
    if name in (HOUR, WEEKDAY):
        return _of_clock(corpus, name)
    of_events = (column for column in corpus.events.columns if column not in fixed)
    there = [GAP, HOUR, WEEKDAY, *of_events, *corpus.user_features, *corpus.item_features]
    raise ValueError(f"corpus {corpus.name!r} has no field {name!r} of events; it has {', '.join(there)}")


def _gaps(corpus: Corpus) -> pl.Series:
    if corpus.clock == "order":
        return pl.Series([None] * corpus.num_events, dtype=pl.Int64)
    return corpus.events.select(pl.col("time").diff().over("user")).to_series()


def _of_clock(corpus: Corpus, name: str) -> pl.Series:
    if corpus.clock != "absolute":
        raise ValueError(
            f"field {name!r} needs unix times, and the clock of corpus {corpus.name!r} is {corpus.clock!r}: drop it"
        )
    moment = pl.from_epoch("time").dt
    part = moment.hour() if name == HOUR else moment.weekday()
    return corpus.events.select(part.cast(pl.String)).to_series()


def missing_values(corpus: Corpus, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Field -> int64 rows of `corpus.events` that have no value of it; fields that all have are left out, and so are
    gaps, which a user's first event cannot have.
    """
    rows = {name: np.flatnonzero(_values(corpus, name).is_null().to_numpy()) for name in names if name != GAP}
    return {name: missing for name, missing in rows.items() if len(missing)}


def words_at(values: pl.Series) -> dict[str, pl.Series]:
    """ "#1", "#2", ... -> the word at that place of each text, in small letters; null behind the last one."""
    lists = values.cast(pl.String).str.to_lowercase().str.extract_all(r"\w+")
    return {f"#{place + 1}": lists.list.get(place, null_on_oob=True) for place in range(WORDS_READ)}


def _asked_words(text: Any) -> dict[str, str]:
    found = {place: words[0] for place, words in words_at(pl.Series([str(text)])).items()}
    return {place: word for place, word in found.items() if word is not None}


def _field(corpus: Corpus, name: str, values: pl.Series) -> Field:
    """How values are cut, from those of the training events."""
    learnt = values.drop_nulls()
    if name == GAP:
        return Gaps(1 if corpus.clock == "order" else GAP_BUCKETS)
    if not len(learnt):
        raise ValueError(f"field {name!r} of corpus {corpus.name!r} has no value in any training event: leave it out")
    if not learnt.dtype.is_numeric():
        return Words(tuple(learnt.cast(pl.String).unique().sort().to_list()))
    return Numbers(quantile_edges(learnt.to_numpy()))


def quantile_edges(values: np.ndarray) -> tuple[float, ...]:
    """Where numbers are cut, so that each of `NUMBER_BUCKETS` has as many; fewer where values repeat."""
    return tuple(np.unique(np.quantile(values, np.arange(1, NUMBER_BUCKETS) / NUMBER_BUCKETS)).tolist())
