"""Splits: which events train, which are held out, and the guard that keeps the two apart.

Two protocols: leave-one-out, the literature's (SASRec, S3-Rec, TIGER), and a cut by global time, which is what a
live system faces. Every consumer of interactions takes `Split.training_events()` and passes what it really uses to
`Split.check_no_leak`.
"""

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
      history_events: int64 [sum of lengths], their rows in `corpus.events`.
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
    """

    corpus: Corpus
    fold: np.ndarray
    targets: Mapping[str, np.ndarray]
    config: Any
    held_out_items: np.ndarray | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the corpus, of each event's fold and of the targets."""
        held_out = () if self.held_out_items is None else (self.held_out_items,)
        targets = (self.targets[name] for name in FOLDS)
        return artifact.fingerprint(self.corpus.fingerprint, self.fold, *targets, *held_out)

    @functools.cached_property
    def learnt_items(self) -> np.ndarray:
        """bool [N]: the items that quantisers may be fitted to."""
        if self.held_out_items is None:
            return np.ones(self.corpus.num_items, bool)
        return ~self.held_out_items

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


@dataclasses.dataclass(frozen=True)
class LeaveOneOut:
    """A user's last interaction is for test, the last but one for validation, the rest for training.

    Rows of one user with the same item at the same time are one interaction recorded more than once, and stay in one
    fold; otherwise the copy would give the target away. Users with fewer than three interactions train only.
    """

    def split(self, corpus: Corpus) -> Split:
        """Splits.

        Raises:
          SplitError: no user has three interactions.
        """
        last_row = _last_row_of_interaction(corpus)
        is_last = last_row == np.arange(corpus.num_events)
        seen = np.concatenate([[0], np.cumsum(is_last)])  # interactions that are complete before each row
        at_bounds = seen[corpus.history_offsets]
        interactions_of_user = np.diff(at_bounds)
        user = corpus.events["user"].to_numpy()
        from_end = at_bounds[user + 1] - seen[1:]
        enough = interactions_of_user[user] >= 3
        fold_of_row = np.where(enough & (from_end == 0), TEST, np.where(enough & (from_end == 1), VALIDATION, TRAIN))
        fold = fold_of_row[last_row].astype(np.int8)
        targets = {name: np.flatnonzero(is_last & (fold == number)) for name, number in FOLDS.items()}
        if not len(targets["test"]):
            raise SplitError(
                f"leave-one-out needs users with at least 3 interactions; the longest of {corpus.num_users} histories "
                f"of corpus {corpus.name!r} has {interactions_of_user.max(initial=0)}"
            )
        return Split(corpus=corpus, fold=fold, targets=targets, config=self)


@dataclasses.dataclass(frozen=True)
class GlobalTime:
    """Training before `validation_time`, validation from there until `test_time`, test from `test_time` on.

    The target of a window is a user's first event in it; the history is all that the user did before. The user's other
    events of the window are held out and not predicted. No training event is at or after `validation_time`.

    Attributes:
      validation_time: unix seconds, or a fraction (0 < f < 1) of all events in order of time.
      test_time: the same.
      minimum_history: users with fewer events before their target are not evaluated.
    """

    validation_time: int | float = 0.8
    test_time: int | float = 0.9
    minimum_history: int = 1

    def split(self, corpus: Corpus) -> Split:
        """Splits.

        Raises:
          SplitError: times that users do not share, cuts in the wrong order, or a fold left empty.
        """
        if corpus.clock != "absolute":
            raise SplitError(
                f"GlobalTime compares the times of all users, but the clock of corpus {corpus.name!r} is "
                f"{corpus.clock!r}: use LeaveOneOut, or a source with unix times"
            )
        times = corpus.events["time"].to_numpy()
        if not len(times):
            raise SplitError(f"corpus {corpus.name!r} has no events to split")
        validation_cut = _cut(times, self.validation_time, "validation_time")
        test_cut = _cut(times, self.test_time, "test_time")
        if validation_cut >= test_cut:
            raise SplitError(
                f"expected validation_time before test_time, got {self.validation_time} (unix {validation_cut}) and "
                f"{self.test_time} (unix {test_cut})"
            )
        fold = ((times >= validation_cut).astype(np.int8) + (times >= test_cut)).astype(np.int8)
        targets = {name: self._targets(corpus, fold, number) for name, number in FOLDS.items()}
        for name, count in {"training": (fold == TRAIN).sum(), **{f: len(rows) for f, rows in targets.items()}}.items():
            if not count:
                raise SplitError(
                    f"no event is left for {name}: the cuts are unix {validation_cut} and {test_cut}, the events of "
                    f"corpus {corpus.name!r} run from {times.min()} to {times.max()}"
                )
        return Split(corpus=corpus, fold=fold, targets=targets, config=self)

    def _targets(self, corpus: Corpus, fold: np.ndarray, number: int) -> np.ndarray:
        rows = np.flatnonzero(fold == number)
        user = corpus.events["user"].to_numpy()[rows]
        first = np.diff(user, prepend=-1) != 0
        enough = rows - corpus.history_offsets[user] >= self.minimum_history
        return rows[first & enough]


def _cut(times: np.ndarray, value: int | float, name: str) -> int:
    """Unix second of a cut given as such, or as a fraction of all events."""
    if isinstance(value, float) and not 0 < value < 1:
        raise SplitError(f"expected {name} as unix seconds (an integer) or a fraction between 0 and 1, got {value}")
    if isinstance(value, float):
        return int(np.quantile(times, value, method="higher"))
    return value


def _last_row_of_interaction(corpus: Corpus) -> np.ndarray:
    """int64 [num_events]: the last row with the same user, item and time; the row itself where times are not known."""
    last = np.arange(corpus.num_events)
    if corpus.clock == "order":
        return last
    user, item, time = (corpus.events[column].to_numpy() for column in ("user", "item", "time"))
    # Events are sorted by user and time, so copies stand in one run of rows with equal user and time; most runs are of
    # one row and need no look.
    begins = (np.diff(user, prepend=-1) != 0) | (np.diff(time, prepend=0) != 0)
    rows = np.flatnonzero(~begins | ~np.append(begins[1:], True))
    interaction = np.cumsum(begins)[rows] * corpus.num_items + item[rows]
    order = np.argsort(interaction, kind="stable")
    ends = np.append(np.diff(interaction[order]) != 0, True) if len(rows) else np.zeros(0, bool)
    next_end = np.searchsorted(np.flatnonzero(ends), np.arange(len(rows)))
    last[rows[order]] = rows[order][np.flatnonzero(ends)][next_end]
    return last
