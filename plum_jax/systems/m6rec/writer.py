"""Events of a corpus as texts: what is said of the user before an event, and of the item."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from plum_jax import artifact
from plum_jax.corpus.schema import Corpus, CorpusError
from plum_jax.corpus.splits import TRAIN
from plum_jax.ranking.labels import LabelledEvents
from plum_jax.systems.m6rec.past import Past
from plum_jax.systems.m6rec.templates import Wording, profile

_MARKS = ".,:;?!()'%\""


class Text(NamedTuple):
    """One text as segments; either side may be empty.

    Attributes:
      user: read both ways: a profile, then behaviours of two segments each, the oldest first.
      candidate: read, and written, from left to right.
    """

    user: tuple[str, ...]
    candidate: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Texts:
    """What is told.

    Attributes:
      wording: words.
      title: text field of items that names them.
      title_words: of it that are told, the first.
      category: feature of items, one or a list of names, that is told behind the title; None: no.
      most_categories: of them that are told, the first.
      history_length: behaviours that are told, the latest.
      statistics: whether the candidate's standing and the user's habits are told.
    """

    wording: Wording = Wording()
    title: str = "title"
    title_words: int = 16
    category: str | None = None
    most_categories: int = 2
    history_length: int = 6
    statistics: bool = True

    def __post_init__(self) -> None:
        if self.history_length < 1 or self.title_words < 1:
            raise ValueError(f"expected a history_length and title_words of at least 1, got {self}")

    def writer(self, events: LabelledEvents) -> Writer:
        """For a corpus and its labels.

        Raises:
          CorpusError: no such field of items.
        """
        corpus = events.split.corpus
        if self.title not in corpus.text_fields:
            there = ", ".join(corpus.text_fields) or "none"
            raise CorpusError(
                f"corpus {corpus.name!r} has no text field {self.title!r} of items, which are named by it; it has "
                f"{there}: set M6_TITLE",
                field=self.title,
            )
        if self.category is not None and self.category not in corpus.item_features:
            there = ", ".join(corpus.item_features) or "none"
            raise CorpusError(
                f"corpus {corpus.name!r} has no feature {self.category!r} of items; it has {there}: set M6_CATEGORY",
                field=self.category,
            )
        return Writer(self, events)


@dataclasses.dataclass(frozen=True, eq=False)
class Writer:
    """Texts about the events of one split, by rows int of `corpus.events`.

    Attributes:
      said: what is told.
      events: the split, and labels of events (NaN: none) that say how a behaviour ended.
    """

    said: Texts
    events: LabelledEvents

    @property
    def corpus(self) -> Corpus:
        return self.events.split.corpus

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self.said, self.events.split.fingerprint, self.events.label)

    @functools.cached_property
    def titles(self) -> list[str]:
        """Of each item; an item without one is "unknown"."""
        titles = self.corpus.items[self.said.title].to_list()
        return [" ".join((title or "").split()[: self.said.title_words]) or "unknown" for title in titles]

    @functools.cached_property
    def categories(self) -> list[list[str]]:
        """Of each item."""
        if self.said.category is None:
            return [[] for _ in self.titles]
        values = self.corpus.items[self.said.category].to_list()
        return [[one for one in (value if isinstance(value, list) else [value]) if one] for value in values]

    @functools.cached_property
    def items(self) -> list[str]:
        """Each item's segment."""
        told = [some[: self.said.most_categories] for some in self.categories]
        return [self.said.wording.item(*pair) for pair in zip(self.titles, told, strict=True)]

    @functools.cached_property
    def past(self) -> Past:
        return Past.of(self.events, self.categories)

    @functools.cached_property
    def _profiles(self) -> list[str]:
        fields = self.corpus.users.select(self.corpus.user_features)
        return [profile(dict(zip(fields.columns, row, strict=True))) for row in fields.iter_rows()] or [
            profile({}) for _ in range(self.corpus.num_users)
        ]

    @functools.cached_property
    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        events = self.corpus.events
        time = None if self.corpus.clock == "order" else events["time"].cast(pl.Int64).to_numpy()
        return events["user"].to_numpy(), events["item"].to_numpy(), time

    def behaviours(self, event: int) -> list[int]:
        """Rows of the events that are told before an event, the user's latest ones in rows before it: of a training
        event those that are learnt from, of another one all.
        """
        first = int(self.corpus.history_offsets[self._columns[0][event]])
        fold = self.events.split.fold
        told = fold[first:event] == TRAIN if fold[event] == TRAIN else np.ones(event - first, bool)
        return (first + np.flatnonzero(told)[-self.said.history_length :]).tolist()

    def check_learnt(self, rows: np.ndarray) -> None:
        """Raises `LeakError` if one of these events, or one that is told before it, is held out."""
        told = np.unique([event for row in rows for event in (int(row), *self.behaviours(int(row)))])
        events = self.corpus.events[told].with_columns(pl.Series("event", told, dtype=pl.Int64))
        self.events.split.check_no_leak(events, used_by="M6-Rec")

    def user(self, event: int) -> tuple[str, ...]:
        """The user side before an event."""
        user, item, time = self._columns
        told = [self._profiles[user[event]]]
        for row in self.behaviours(event):
            seconds = None if time is None else float(time[event] - time[row])
            told += [self.said.wording.behaviour(seconds, self.events.label[row]), self.items[item[row]]]
        return tuple(told)

    def item_of(self, event: int) -> int:
        """The event's item."""
        return int(self._columns[1][event])

    def offer(self, event: int) -> Text:
        """The event's item as a candidate: what a click is predicted of. The event's own label is not in it."""
        candidate = [self.said.wording.offer, self.items[self.item_of(event)]]
        if self.said.statistics:
            past = self.past
            candidate += [
                self.said.wording.standing(float(past.standing[event])),
                self.said.wording.habit(float(past.liked[event]), float(past.liked_kind[event])),
            ]
        return Text(self.user(event), tuple(part for part in candidate if part))

    def outcome(self, event: int, label: float) -> Text:
        """The event as a sentence with one or the other ending, behind what was known before it."""
        offer = self.offer(event)
        return Text(offer.user, (*offer.candidate, f"Now, the user {self.said.wording.verb(label)} it."))

    def explanation(self, event: int) -> Text | None:
        """The event's item, and why; None where it has no category.

        Of its categories the one that most of the told behaviours with label 1 have, the first of several.
        """
        category = self._liked_category(event)
        if category is None:
            return None
        because = self.said.wording.explanation(self.titles[self.item_of(event)], category)
        return Text(self.user(event), (self.said.wording.offer, because))

    def conversation(self, event: int) -> Text | None:
        """What a user may ask, and the event's item as the answer; None where nothing was liked, or for no category."""
        liked, category = self._liked(event), self._liked_category(event)
        if not liked or category is None:
            return None
        question = self.said.wording.question([self.titles[item] for item in liked[-3:]])
        return Text((question,), (self.said.wording.answer(self.titles[self.item_of(event)], category),))

    def _liked(self, event: int) -> list[int]:
        """Items of the told behaviours with label 1."""
        return [self.item_of(row) for row in self.behaviours(event) if self.events.label[row] == 1]

    def _liked_category(self, event: int) -> str | None:
        own, liked = self.categories[self.item_of(event)], self._liked(event)
        counts = [sum(name in self.categories[item] for item in liked) for name in own]
        return own[int(np.argmax(counts))] if own else None


def lines_for_pieces(texts: Sequence[Text]) -> list[str]:
    """Each text as one line, and each of their words with what may stand behind it.

    SentencePiece makes no piece of a word that it meets in one form alone, however often: a template's words would
    each be several pieces.
    """
    lines = [" ".join((*text.user, *text.candidate)) for text in texts]
    words = sorted({word.strip(_MARKS) for line in lines for word in line.split()} - {""})
    return lines + [f"{word} {word}, {word}. {word}'" for word in words]
