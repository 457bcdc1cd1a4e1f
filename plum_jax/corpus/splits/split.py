"""Split: a corpus with each event in one fold, the evaluations of its folds, and the guard that keeps them apart."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import polars as pl

from plum_jax import artifact
from plum_jax.corpus import leaks
from plum_jax.corpus.schema import Corpus

NOT_LEARNT, TRAIN, VALIDATION, TEST = -1, 0, 1, 2
FOLDS: dict[str, int] = {"validation": VALIDATION, "test": TEST}
FoldName = Literal["validation", "test"]


class SplitError(ValueError):
    """The corpus cannot be split as asked, or a fold is asked for that does not exist."""


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationSet:
    """E users to predict one item for, each with everything that may be known before it.

    Attributes:
      fold: "validation" or "test".
      user: int32 [E], user indexes, ascending, each once.
      target_item: int32 [E], the item to be found.
      target_event: int64 [E], its row in `corpus.events`.
      history_items: int32 [sum of lengths], all histories one after another, oldest item first.
      history_events: int64 [sum of lengths], their rows in `corpus.events`; -1: an item of which nothing more is known.
      history_offsets: int64 [E+1]: history i is history_offsets[i] .. history_offsets[i+1]-1.
    """

    fold: str
    user: np.ndarray
    target_item: np.ndarray
    target_event: np.ndarray
    history_items: np.ndarray
    history_events: np.ndarray
    history_offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    def history(self, index: int) -> np.ndarray:
        """int32 [length], the items before target `index`, oldest first."""
        return self.history_items[self.history_offsets[index] : self.history_offsets[index + 1]]

    def take(self, rows: np.ndarray) -> EvaluationSet:
        """Some of the users, in the order of `rows` (int [n], ascending)."""
        lengths = np.diff(self.history_offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        events = np.arange(offsets[-1]) + np.repeat(self.history_offsets[rows] - offsets[:-1], lengths)
        return EvaluationSet(
            fold=self.fold,
            user=self.user[rows],
            target_item=self.target_item[rows],
            target_event=self.target_event[rows],
            history_items=self.history_items[events],
            history_events=self.history_events[events],
            history_offsets=offsets,
        )


def first_targets(corpus: Corpus, fold: np.ndarray, number: int, minimum_history: int) -> np.ndarray:
    """int64 [E], the first event of each user in a fold, for users with so many events before it at least."""
    rows = np.flatnonzero(fold == number)
    user = corpus.events["user"].to_numpy()[rows]
    first = np.diff(user, prepend=-1) != 0
    enough = rows - corpus.history_offsets[user] >= minimum_history
    return rows[first & enough]


@dataclasses.dataclass(frozen=True, eq=False)
class Before:
    """What a run that another goes on from has learnt: context from then on, and not learnt twice.

    Attributes:
      events: bool [num_events], training events that it has learnt; none of a user's others is older.
      items: bool [N], items whose text it has learnt.
    """

    events: np.ndarray
    items: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A corpus with each event in exactly one fold.

    Attributes:
      corpus: what was split.
      fold: int8 [num_events]: TRAIN, VALIDATION, TEST, or NOT_LEARNT for earlier events of held-out items, which are
        in the histories of evaluations and in no training.
      targets: fold name -> int64 [E], ascending rows of `corpus.events` that are to be predicted, at most one a user.
      config: the splitter that made it.
      held_out_items: bool [N], items that count as new: nothing is learnt from them or their events. None: no item.
      before: what of the training events and of the items an earlier run has learnt; None: nothing.
    """

    corpus: Corpus
    fold: np.ndarray
    targets: Mapping[str, np.ndarray]
    config: Any
    held_out_items: np.ndarray | None = None
    before: Before | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the corpus, of each event's fold, of the targets, and of what is new and what was learnt before."""
        more: list[Any] = [] if self.held_out_items is None else [self.held_out_items]
        more += [] if self.before is None else ["before", self.before.events, self.before.items]
        targets = (self.targets[name] for name in FOLDS)
        return artifact.fingerprint(self.corpus.fingerprint, self.fold, *targets, *more)

    @functools.cached_property
    def learnt_items(self) -> np.ndarray:
        """bool [N]: the items that quantisers may be fitted to."""
        if self.held_out_items is None:
            return np.ones(self.corpus.num_items, bool)
        return ~self.held_out_items

    @property
    def spoken_items(self) -> np.ndarray:
        """bool [N]: the items whose text is to be learnt: learnt items that no run before has learnt."""
        return self.learnt_items if self.before is None else self.learnt_items & ~self.before.items

    def learnt_before(self, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """int64 [users]: how many of each user's events a run before has learnt; a user's begin at `starts` of `rows`,
        int [users + 1] places in int [R] rows of `corpus.events`.
        """
        if self.before is None:
            return np.zeros(len(starts) - 1, np.int64)
        learnt = np.concatenate([[0], np.cumsum(self.before.events[rows])])
        return np.diff(learnt[starts])

    @functools.cached_property
    def item_popularity(self) -> np.ndarray:
        """Training events of each item, int64 [N]."""
        events = self.training_events()
        self.check_no_leak(events, used_by="item popularity")
        return np.bincount(events["item"].to_numpy(), minlength=self.corpus.num_items)

    def training_events(self) -> pl.DataFrame:
        """The rows of `corpus.events` that may be learnt from, in order, with "event" Int64: the row number there."""
        rows = np.flatnonzero(self.fold == TRAIN)
        return self.corpus.events[rows].with_columns(pl.Series("event", rows, dtype=pl.Int64))

    def evaluation(self, fold: str) -> EvaluationSet:
        """Targets of a fold with their histories: a user's earlier events, none of which is of this or a later fold.

        Raises:
          SplitError: no such fold.
        """
        if fold not in FOLDS:
            raise SplitError(f"expected a fold of {sorted(FOLDS)}, got {fold!r}")
        target = self.targets[fold]
        user, item = (self.corpus.events[column].to_numpy() for column in ("user", "item"))
        earlier = self.fold < FOLDS[fold]
        kept_before = np.concatenate([[0], np.cumsum(earlier)])
        start = kept_before[self.corpus.history_offsets[user[target]]]
        lengths = kept_before[target] - start
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        events = np.flatnonzero(earlier)[np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], lengths)]
        return EvaluationSet(
            fold=fold,
            user=user[target],
            target_item=item[target],
            target_event=target,
            history_items=item[events],
            history_events=events,
            history_offsets=offsets,
        )

    def check_no_leak(self, events: pl.DataFrame, used_by: str) -> None:
        """Raises if any of these events is held out for validation or test (see `leaks.check_no_leak`).

        Args:
          events: columns "user" and "item" (indexes), and those of "time" and "event" that there are.
          used_by: who learns from them; the error names it.

        Raises:
          LeakError: names used_by, user, item and row.
        """
        leaks.check_no_leak(self._held_out, self.corpus, events, used_by)

    @functools.cached_property
    def _held_out(self) -> pl.DataFrame:
        rows = np.flatnonzero(self.fold != TRAIN)
        return self.corpus.events[rows].select("user", "item", "time", event=pl.Series(rows, dtype=pl.Int64))
