"""Fields: what the templates may name, and tokens for those that are numbers or categories."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from plum_jax import ragged
from plum_jax.corpus.schema import FOLD, Corpus
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.field_tokens import Buckets, Categories, FieldTokens
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks.templates import SID, Rows

SINCE_PREVIOUS = "hours_since_previous_watch"
SINCE_FINAL = "hours_since_final_watch"


class EventColumns:
    """Columns of events: engagement, context, item columns, and two that are derived from times.

    `hours_since_previous_watch` looks back only. `hours_since_final_watch` (PLUM, Table 1) is counted to the last event
    of the history that is rendered, so that it says nothing of the target.

    Attributes:
      own: columns that a watch has, not its item.
      names: all that a template may name.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self.own = tuple(name for name in corpus.events.columns if name not in ("user", "item", "time", FOLD))
        derived = (SINCE_PREVIOUS, SINCE_FINAL) if corpus.clock != "order" else ()
        self.names = tuple(dict.fromkeys((*derived, *self.own, *corpus.items.columns)))

    def column(self, name: str, events: np.ndarray, final_time: np.ndarray | None = None) -> pl.Series:
        """Field `name` of rows `events` of `corpus.events`; `final_time` int64, unix s, belongs to SINCE_FINAL."""
        table = self._corpus.events
        if name in self.own:
            return table[name].gather(events)
        if name == SINCE_FINAL and final_time is not None:
            return pl.Series((final_time - table["time"].to_numpy()[events]) / 3600)
        if name == SINCE_PREVIOUS:
            user, time = table["user"].to_numpy(), table["time"].to_numpy()
            previous = np.maximum(events - 1, 0)
            gap = (time[events] - time[previous]) / 3600
            return pl.Series(np.where((events > 0) & (user[previous] == user[events]), gap, np.nan))
        return item_column(self._corpus, name, table["item"].to_numpy()[events])


def item_column(corpus: Corpus, name: str, items: np.ndarray) -> pl.Series:
    """Column `name` of item indexes `items`; null where the index is -1 (no item)."""
    return corpus.items[name].gather(pl.Series(items, dtype=pl.Int64).replace(-1, None))


class TemplateRows:
    """Rows for the renderer, of items, events, users and contexts of one corpus."""

    def __init__(self, corpus: Corpus, table: SidTable, vocabulary: SidVocabulary) -> None:
        if table.corpus_fingerprint != corpus.fingerprint:
            raise ValueError(
                f"the SID table was made for corpus {table.corpus_fingerprint}, this corpus ({corpus.name!r}) is "
                f"{corpus.fingerprint}: build the table again"
            )
        if table.codebook_sizes != vocabulary.codebook_sizes:
            raise ValueError(
                f"the SID table has codebooks {table.codebook_sizes}, the vocabulary {vocabulary.codebook_sizes}: "
                "build the vocabulary again"
            )
        self.corpus = corpus
        self._event_columns = EventColumns(corpus)
        self._sids = vocabulary.encode_sid(table.codes)
        items = corpus.items.columns
        self.item_fields = (SID, *items)
        self.event_fields = (SID, *self._event_columns.names)
        self.target_fields = tuple(name for name in self.event_fields if name != SINCE_FINAL)
        self.user_fields = tuple(corpus.users.columns)
        self.context_fields = tuple(dict.fromkeys((SID, *corpus.context_features, *items)))

    def items(self, items: np.ndarray) -> Rows:
        """Items by index."""
        return Rows(len(items), self._sid_rows(items), lambda name: item_column(self.corpus, name, items))

    def events(self, events: np.ndarray, final_time: np.ndarray | None = None) -> Rows:
        """Events by row of `corpus.events`; `final_time` as in `EventColumns.column`."""
        sids = self._sid_rows(self.corpus.events["item"].to_numpy()[events])
        return Rows(len(events), sids, lambda name: self._event_columns.column(name, events, final_time))

    def unpersonal_events(self, items: np.ndarray) -> Rows:
        """Events of nobody: the items' own columns, and what only a watch could say is missing.

        Each is the newest of its history, so 0 hours since the final watch.
        """

        def column(name: str) -> pl.Series:
            if name == SINCE_FINAL:
                return pl.Series(np.zeros(len(items)))
            if name == SINCE_PREVIOUS or name in self._event_columns.own:
                return _missing(self.corpus.events, name, len(items))
            return item_column(self.corpus, name, items)

        return Rows(len(items), self._sid_rows(items), column)

    def unpersonal_contexts(self, last_items: np.ndarray) -> Rows:
        """Requests of nobody: the context video, and missing context features."""

        def column(name: str) -> pl.Series:
            if name in self.corpus.context_features:
                return _missing(self.corpus.events, name, len(last_items))
            return item_column(self.corpus, name, last_items)

        return Rows(len(last_items), self._sid_rows(last_items), column)

    def unknown_users(self, count: int) -> Rows:
        """Users of whom nothing is known: every field is missing."""
        return Rows(count, None, lambda name: _missing(self.corpus.users, name, count))

    def _item_or_missing(self, name: str, events: pl.DataFrame, items: np.ndarray) -> pl.Series:
        if name in events.columns or name == SINCE_PREVIOUS:
            return _missing(events, name, len(items))
        return item_column(self.corpus, name, items)

    def users(self, users: np.ndarray) -> Rows:
        """Users by index."""
        return Rows(len(users), None, lambda name: self.corpus.users[name].gather(users))

    def contexts(self, target_events: np.ndarray, last_items: np.ndarray) -> Rows:
        """Requests: context features of the event to predict, and as context video the item watched last (-1: none)."""

        def column(name: str) -> pl.Series:
            if name in self.corpus.context_features:
                return self.corpus.events[name].gather(target_events)
            return item_column(self.corpus, name, last_items)

        return Rows(len(target_events), self._sid_rows(last_items), column)

    def _sid_rows(self, items: np.ndarray) -> ragged.Ragged:
        there = items >= 0
        return ragged.Ragged(self._sids[items[there]].reshape(-1), there * np.int64(self._sids.shape[1]))


def _missing(frame: pl.DataFrame, name: str, count: int) -> pl.Series:
    return pl.Series([None] * count, dtype=frame.schema.get(name, pl.Float64))


@dataclasses.dataclass(frozen=True)
class FieldTokenizer:
    """Chooses tokens for fields that templates name, from training events, users and items.

    A number becomes `num_buckets` buckets at its quantiles (fewer where values repeat), a category its
    `max_categories` most frequent values.

    Attributes:
      names: fields of events, users or items; looked up in this order.
      num_buckets: of a number.
      max_categories: of a category; rarer values are <name:other>.
    """

    names: tuple[str, ...] = ()
    num_buckets: int = 8
    max_categories: int = 64

    def tokens(self, split: Split) -> tuple[FieldTokens, ...]:
        """Token definitions for the vocabulary.

        Raises:
          ValueError: no such field, or one without a single value.
        """
        events = split.training_events()
        split.check_no_leak(events, used_by="field tokens")
        return tuple(
            self._define(name, self._values(split.corpus, name, events["event"].to_numpy())) for name in self.names
        )

    def _values(self, corpus: Corpus, name: str, events: np.ndarray) -> pl.Series:
        columns = EventColumns(corpus)
        if name == SINCE_FINAL:
            user, time = (corpus.events[column].to_numpy()[events] for column in ("user", "time"))
            last = np.searchsorted(user, user, side="right") - 1  # each user's last training event
            return columns.column(name, events, time[last])
        if name in columns.names and name not in corpus.items.columns:
            return columns.column(name, events)
        for frame in (corpus.users, corpus.items):
            if name in frame.columns:
                return frame[name]
        valid = sorted({*columns.names, *corpus.users.columns})
        raise ValueError(f"field tokens: corpus {corpus.name!r} has no field {name!r}; valid are {', '.join(valid)}")

    def _define(self, name: str, values: pl.Series) -> FieldTokens:
        if isinstance(values.dtype, pl.List):
            values = values.explode(empty_as_null=True, keep_nulls=True)
        if values.dtype.is_float():
            values = values.fill_nan(None)
        values = values.drop_nulls()
        if not len(values):
            raise ValueError(f"field tokens: field {name!r} has no value in any row; leave it out")
        if values.dtype.is_numeric():
            quantiles = np.quantile(values.to_numpy(), np.arange(1, self.num_buckets) / self.num_buckets)
            # An edge at the smallest value would leave the bucket below it empty.
            edges = [float(edge) for edge in np.unique(quantiles) if edge > values.min()]
            return Buckets(name, tuple(edges) or (float(values.max()),))  # type: ignore[arg-type]
        counts = values.cast(pl.String).value_counts().sort(["count", values.name], descending=[True, False])
        kept = [value for value in counts[values.name].to_list() if value not in ("other", "none")]
        return Categories(name, tuple(kept[: self.max_categories]))
