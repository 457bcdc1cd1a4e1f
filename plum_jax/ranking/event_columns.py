"""What a ranker reads of an event: the item, the user, the request, and the user's behaviours before it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from plum_jax import artifact
from plum_jax.corpus.event_fields import GAP, GAP_BUCKETS, UNKNOWN, EventFields, gap_buckets
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import Split
from plum_jax.ranking.knowledge import KnowledgeTables

NO_CATEGORY = 0


@dataclasses.dataclass(frozen=True, eq=False)
class ItemCategories:
    """Categories of every item.

    Attributes:
      of_item: int32 [I, C], the item's categories in its own order, `NO_CATEGORY` behind the last; C is at least 1.
      size: number of categories, with `NO_CATEGORY`.
    """

    of_item: np.ndarray
    size: int

    @classmethod
    def of(cls, corpus: Corpus, column: str | None) -> ItemCategories:
        """Values of a feature of items, String or List(String); None: no item has any.

        Raises:
          ValueError: no such feature.
        """
        if column is None:
            return cls(np.full((corpus.num_items, 1), NO_CATEGORY, np.int32), 1)
        if column not in corpus.item_features:
            raise ValueError(
                f"corpus {corpus.name!r} has no feature {column!r} of items to be their category; it has "
                f"{', '.join(corpus.item_features) or 'none'}: set BehaviourRanker.category"
            )
        values = corpus.items[column].to_list()
        names = [value if isinstance(value, list) else [value] for value in values]
        known = sorted({str(name) for some in names for name in some if name is not None})
        number = {name: place for place, name in enumerate(known, start=1)}
        lists = [[number[str(name)] for name in some if name is not None] for some in names]
        table = np.full((corpus.num_items, max(1, *map(len, lists))), NO_CATEGORY, np.int32)
        for row, numbers in zip(table, lists, strict=True):
            row[: len(numbers)] = numbers
        return cls(table, 1 + len(number))


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How many values each column of a batch has.

    Attributes:
      items, users: rows of their embeddings.
      request: buckets of each field of the user and the request.
      behaviour: buckets of each field of a behaviour; the last is its gap to the candidate.
      conditions, knowledge_width: N and D of the knowledge; 0 where there is none.
      statistics: buckets of each statistic of earlier events; () where none are read.
    """

    items: int
    users: int
    request: tuple[int, ...]
    behaviour: tuple[int, ...]
    conditions: int = 0
    knowledge_width: int = 0
    statistics: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class EventColumns:
    """Columns of any events of a split, looked up by their rows.

    The behaviours of an event are the latest events of the same user in rows before it, whatever their fold: to read is
    not to learn. What is predicted is a field of the event itself, which is in no column of its own.

    Attributes:
      split: events and folds.
      history_length: T, behaviours that are read.
      behaviour_fields: what is read of a behaviour beside its item and its gap, columns of events.
      request_fields: what is read of the event beside its item: columns of users, context of events.
      category: feature of items that is their category; None: they have none.
      knowledge: of a user model; None: none.
      statistics: of earlier events (`past.past_statistics`), read beside the request; None: none.
    """

    split: Split
    history_length: int
    behaviour_fields: tuple[str, ...] = ()
    request_fields: tuple[str, ...] = ()
    category: str | None = None
    knowledge: KnowledgeTables | None = None
    statistics: EventFields | None = None

    def __post_init__(self) -> None:
        if self.history_length < 1:
            raise ValueError(f"expected a history_length of at least 1, got {self.history_length}")
        corpus = self.split.corpus
        engagement = [name for name in self.request_fields if name not in _known_before(corpus)]
        if engagement:
            raise ValueError(
                f"request_fields are known before the event: expected names among {_known_before(corpus)}, got "
                f"{engagement}; what is known after it may be in behaviour_fields"
            )
        if self.knowledge is not None:
            self.knowledge.require_for(corpus.num_events, corpus.num_items)

    @classmethod
    def where_said(
        cls,
        split: Split,
        history_length: int,
        *,
        behaviour_fields: Sequence[str],
        request_fields: Sequence[str] | None = None,
        category: str | None = None,
        knowledge: KnowledgeTables | None = None,
        statistics: EventFields | None = None,
    ) -> EventColumns:
        """Of the request all fields that there are, and the corpus's first category, where nothing else is said."""
        corpus = split.corpus
        return cls(
            split,
            history_length,
            tuple(behaviour_fields),
            tuple(_known_before(corpus) if request_fields is None else request_fields),
            next(iter(corpus.item_features), None) if category is None else category,
            knowledge,
            statistics,
        )

    @functools.cached_property
    def categories(self) -> ItemCategories:
        return ItemCategories.of(self.split.corpus, self.category)

    @functools.cached_property
    def sizes(self) -> Sizes:
        corpus, known = self.split.corpus, self.knowledge
        return Sizes(
            items=corpus.num_items,
            users=corpus.num_users,
            request=self._request.sizes,
            behaviour=(*self._behaviour.sizes, GAP_BUCKETS),
            conditions=0 if known is None else known.queries.shape[1],
            knowledge_width=0 if known is None else known.queries.shape[2],
            statistics=() if self.statistics is None else self.statistics.sizes,
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of all that batches are looked up in."""
        known = "none" if self.knowledge is None else self.knowledge.fingerprint
        told = "none" if self.statistics is None else self.statistics.fingerprint
        parts = self._request.fingerprint, self._behaviour.fingerprint, self.categories.of_item, told
        return artifact.fingerprint(self.split.fingerprint, self.history_length, known, *parts)

    def of(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of B events, T behaviours each, the oldest first and the rest filled up on the right.

        "item", "user" int32 [B], "request" int32 [B, G], "behaviour_items" int32 [B, T], "behaviour_fields" int32
        [B, T, F + 1] with the bucket of the gap last, "lengths" int32 [B]; with knowledge "knowledge_queries" float32
        [B, N, D] and "knowledge_item" float32 [B, D].

        Args:
          rows: int [B] of `corpus.events`.
        """
        first, places = self._first[rows], np.arange(self.history_length)
        lengths = np.minimum(rows - first, self.history_length)
        real = places < lengths[:, None]
        behaviours = np.where(real, rows[:, None] - lengths[:, None] + places, 0)
        fields = self._behaviour.buckets[behaviours]
        fields = np.concatenate([fields, self._gaps(rows, behaviours)[..., None]], axis=-1)
        batch = {
            "item": self._item[rows],
            "user": self._user[rows],
            "request": self._request.buckets[rows],
            "behaviour_items": np.where(real, self._item[behaviours], 0),
            "behaviour_fields": np.where(real[..., None], fields, UNKNOWN),
            "lengths": lengths.astype(np.int32),
        }
        if self.statistics is not None:
            batch["statistics"] = self.statistics.buckets[rows]
        if self.knowledge is not None:
            batch["knowledge_queries"] = self.knowledge.queries[rows].astype(np.float32)
            batch["knowledge_item"] = self.knowledge.items[batch["item"]].astype(np.float32)
        return batch

    @functools.cached_property
    def by_event(self) -> dict[str, np.ndarray]:
        """Columns [E, ...] of every event, for those who read whole histories: "item", "user", "request", "time" (int32
        seconds since the user's first event), and of what came of it "behaviour_fields", the gap being the one to the
        event before.
        """
        corpus = self.split.corpus
        gap = EventFields.of(self.split, (GAP,)).buckets
        known = corpus.clock != "order"
        time = self._time - self._time[self._first] if known else np.zeros(corpus.num_events, np.int64)
        return {
            "item": self._item,
            "user": self._user,
            "request": self._request.buckets,
            "behaviour_fields": np.concatenate([self._behaviour.buckets, gap], axis=1),
            "time": np.minimum(time, np.iinfo(np.int32).max).astype(np.int32),
        }

    @functools.cached_property
    def _item(self) -> np.ndarray:
        return self.split.corpus.events["item"].to_numpy()

    @functools.cached_property
    def _user(self) -> np.ndarray:
        return self.split.corpus.events["user"].to_numpy()

    @functools.cached_property
    def _first(self) -> np.ndarray:
        return self.split.corpus.history_offsets[self._user]

    @functools.cached_property
    def _request(self) -> EventFields:
        return EventFields.of(self.split, self.request_fields)

    @functools.cached_property
    def _behaviour(self) -> EventFields:
        return EventFields.of(self.split, self.behaviour_fields)

    def _gaps(self, rows: np.ndarray, behaviours: np.ndarray) -> np.ndarray:
        if self.split.corpus.clock == "order":
            return np.full(behaviours.shape, UNKNOWN, np.int32)
        time = self._time
        return gap_buckets(np.maximum(time[rows][:, None] - time[behaviours], 0))

    @functools.cached_property
    def _time(self) -> np.ndarray:
        return self.split.corpus.events["time"].to_numpy()


def _known_before(corpus: Corpus) -> Sequence[str]:
    return [*corpus.user_features, *corpus.context_features]
