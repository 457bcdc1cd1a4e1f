"""Data that come split: the fold of each event in the corpus's column "fold", or a list of items for each fold."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from plum_jax.corpus.schema import FOLD, Corpus
from plum_jax.corpus.splits.leave_one_out import last_row_of_interaction
from plum_jax.corpus.splits.split import FOLDS, TEST, TRAIN, VALIDATION, Split, SplitError

Names = str | int | Sequence[str | int]


@dataclasses.dataclass(frozen=True)
class Given:
    """The folds that the data name, event by event (`table.Table.fold`, or a file for each fold in `events_path`).

    One target a user and fold: the first of the user's events of the fold that has an earlier event of an earlier fold.
    Its history is all those, so training and validation for test. The fold's other events are held out and not
    predicted. How many targets are older than training events of the same user, as random splits have it, is printed.

    Attributes:
      train, validation, test: what the data call each fold, one name or several. `validation=None`: the data have none,
        and each user's last training interaction is taken, where the user has two or more.
    """

    train: Names = "train"
    validation: Names | None = "validation"
    test: Names = "test"

    def split(self, corpus: Corpus) -> Split:
        """Splits.

        Raises:
          SplitError: no folds in the corpus; a name twice, or not of the data, or one of the data that is not named
            here; the same interaction in two folds; or a fold without an event or a target.
        """
        if FOLD not in corpus.events.columns:
            raise SplitError(
                f"corpus {corpus.name!r} does not say which event is of which fold: set table.Table.fold to the column "
                "that does, or table.Table.events_path to {fold: file}"
            )
        fold = self._numbers(corpus)
        _require_one_fold(corpus, fold)
        split = _split(corpus, fold, self, own_validation=self.validation is not None)
        for name, rows in split.targets.items():
            later = _with_training_after(split, rows)
            if later:
                print(
                    f"{corpus.name}: {later:,} of {len(rows):,} {name} targets are older than training events of the "
                    "same user; their histories hold what came before"
                )
        return split

    def _numbers(self, corpus: Corpus) -> np.ndarray:
        """int8 [num_events]: the fold of each event by its name."""
        named = {TRAIN: self.train, VALIDATION: () if self.validation is None else self.validation, TEST: self.test}
        number_of: dict[str, int] = {}
        for number, names in named.items():
            for name in [names] if isinstance(names, str | int) else names:
                if str(name) in number_of:
                    raise SplitError(f"splits.Given names the fold {str(name)!r} twice: each belongs to one")
                number_of[str(name)] = number
        there = dict(sorted(corpus.events[FOLD].value_counts().iter_rows()))
        said = f"train={self.train!r}, validation={self.validation!r}, test={self.test!r}"
        for name in there:
            if name not in number_of:
                raise SplitError(
                    f"corpus {corpus.name!r} has a fold {name!r} ({there[name]:,} events), which splits.Given does not "
                    f"name ({said}): add it to one of them, or leave its events out of the file"
                )
        for name, number in number_of.items():
            if name not in there:
                none = "; validation=None takes each user's last training interaction" * (number == VALIDATION)
                raise SplitError(f"no event is of the fold {name!r} ({said}); the folds are {list(there)}{none}")
        return corpus.events[FOLD].replace_strict(number_of, return_dtype=pl.Int8).to_numpy()


@dataclasses.dataclass(frozen=True)
class GivenItems:
    """Items listed for test and validation are new: all their events are of that fold, and nothing is learnt from them.

    Targets and histories are those of `Given`: a user's first event with an item of the fold after any event of an
    earlier one. The lists are text files, one item id a line.

    Attributes:
      test: path of the list for test.
      validation: path of the list for validation; None: there is none, and each user's last training interaction is
        taken, where the user has two or more.
    """

    test: str
    validation: str | None = None

    def split(self, corpus: Corpus) -> Split:
        """Splits; says how many of the listed ids the corpus does not have.

        Raises:
          SplitError: no such file, no id of it in the corpus, an id in both lists, or a fold without event or target.
        """
        lists = {TEST: self.test} | ({} if self.validation is None else {VALIDATION: self.validation})
        fold_of_item = np.full(corpus.num_items, TRAIN, np.int8)
        for number, path in lists.items():
            items = _listed_items(corpus, path)
            twice = items[fold_of_item[items] != TRAIN]
            if len(twice):
                item_id = corpus.items["item_id"][int(twice[0])]
                raise SplitError(f"item {item_id!r} is in both {self.test} and {path}: leave it in one")
            fold_of_item[items] = number
        fold = fold_of_item[corpus.events["item"].to_numpy()]
        own = self.validation is not None
        return _split(corpus, fold, self, own_validation=own, held_out_items=fold_of_item != TRAIN)


def _listed_items(corpus: Corpus, path: str) -> np.ndarray:
    """int64: the items of a list; prints how many of its ids the corpus does not have."""
    try:
        lines = epath.Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SplitError(f"cannot read {path} ({error}): expected a text file with one item id a line") from None
    ids = dict.fromkeys(filter(None, map(str.strip, lines)))
    index = {item_id: item for item, item_id in enumerate(corpus.items["item_id"])}
    unknown = [item_id for item_id in ids if item_id not in index]
    if len(unknown) == len(ids):
        raise SplitError(
            f"{path}: none of its {len(ids)} lines (such as {unknown[:3]}) is an item of corpus {corpus.name!r} (such "
            f"as {list(index)[:3]}): expected one item id a line"
        )
    if unknown:
        print(f"{path}: {len(unknown):,} of {len(ids):,} ids (such as {unknown[0]!r}) are no items of {corpus.name}")
    return np.array([index[item_id] for item_id in ids if item_id in index], np.int64)


def _require_one_fold(corpus: Corpus, fold: np.ndarray) -> None:
    """Rows of one user with the same item at the same time are one interaction, and must be of one fold."""
    last = last_row_of_interaction(corpus)
    torn = np.flatnonzero(fold != fold[last])
    if len(torn):
        one = corpus.events.row(int(torn[0]), named=True)
        raise SplitError(
            f"user {corpus.users['user_id'][one['user']]!r}, item {corpus.items['item_id'][one['item']]!r}, time "
            f"{one['time']} is in the folds {one[FOLD]!r} and {corpus.events[FOLD][int(last[torn[0]])]!r} ({len(torn)} "
            "such events): a held-out interaction may not be in another fold; keep it in one"
        )


def _split(
    corpus: Corpus, fold: np.ndarray, config: Any, *, own_validation: bool, held_out_items: np.ndarray | None = None
) -> Split:
    """The split with its targets; `own_validation=False` makes validation of the last training interactions."""
    if not own_validation:
        fold = np.where(_last_training_interaction(corpus, fold), VALIDATION, fold).astype(np.int8)
    targets = {name: _first_after_history(corpus, fold, number) for name, number in FOLDS.items()}
    if not (fold == TRAIN).any():
        raise SplitError(f"no event of corpus {corpus.name!r} is left for training")
    for name, rows in targets.items():
        if not len(rows):
            raise SplitError(
                f"no user of corpus {corpus.name!r} has an event for {name} after one of an earlier fold: "
                f"{(fold == FOLDS[name]).sum():,} events are of {name}, and a target needs a history"
            )
    return Split(corpus=corpus, fold=fold, targets=targets, config=config, held_out_items=held_out_items)


def _last_training_interaction(corpus: Corpus, fold: np.ndarray) -> np.ndarray:
    """bool [num_events]: the rows of each user's last training interaction, of users with two or more."""
    rows = np.flatnonzero(fold == TRAIN)
    user, last = corpus.events["user"].to_numpy()[rows], last_row_of_interaction(corpus)[rows]
    newest = np.full(corpus.num_users, -1)
    np.maximum.at(newest, user, last)
    older = last < newest[user]
    has_older = np.zeros(corpus.num_users, bool)
    has_older[user[older]] = True
    chosen = np.zeros(corpus.num_events, bool)
    chosen[rows[~older & has_older[user]]] = True
    return chosen


def _first_after_history(corpus: Corpus, fold: np.ndarray, number: int) -> np.ndarray:
    """int64 [E]: each user's first event of a fold that has an event of an earlier fold before it."""
    user = corpus.events["user"].to_numpy()
    earlier_before = np.concatenate([[0], np.cumsum(fold < number)])
    rows = np.flatnonzero(fold == number)
    rows = rows[earlier_before[rows] > earlier_before[corpus.history_offsets[user[rows]]]]
    return rows[np.diff(user[rows], prepend=-1) != 0]


def _with_training_after(split: Split, rows: np.ndarray) -> int:
    """How many of these events have a later training event of the same user."""
    training_before = np.concatenate([[0], np.cumsum(split.fold == TRAIN)])
    ends = split.corpus.history_offsets[split.corpus.events["user"].to_numpy()[rows] + 1]
    return int((training_before[ends] > training_before[rows]).sum())
