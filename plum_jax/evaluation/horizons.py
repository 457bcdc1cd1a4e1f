"""Later targets of the same histories: whether what is recommended now is still right some events, or days, later."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.corpus.splits import FOLDS, EvaluationSet, Split

DAY = 86_400


def events_later(split: Split, fold: str, behind: int) -> EvaluationSet:
    """Users of a fold with the event `behind` rows behind their target as target, where it is of the same fold; the
    histories stay what they are.

    Raises:
      ValueError: nobody has so many events in the fold.
    """
    evaluation = split.evaluation(fold)
    return _with_targets(split, evaluation, evaluation.target_event + behind, f"{behind} events behind the first")


def days_later(split: Split, fold: str, days: float) -> EvaluationSet:
    """Users of a fold with their first event of it that is so many days, or more, behind the last one of the history.

    Raises:
      ValueError: times are not known, or nobody has such an event.
    """
    corpus, evaluation = split.corpus, split.evaluation(fold)
    if corpus.clock == "order":
        raise ValueError(f"corpus {corpus.name!r} has no times: ask for events_later")
    time, user = (corpus.events[name].to_numpy() for name in ("time", "user"))
    lasts = time[evaluation.history_events[evaluation.history_offsets[1:] - 1]]
    ends = corpus.history_offsets[evaluation.user + 1]
    found = np.full(len(evaluation), -1)
    for row, (first, end, last) in enumerate(zip(evaluation.target_event, ends, lasts, strict=True)):
        late = np.flatnonzero((time[first:end] >= last + days * DAY) & (split.fold[first:end] == FOLDS[fold]))
        if len(late):
            found[row] = first + late[0]
    assert (user[found[found >= 0]] == evaluation.user[found >= 0]).all()
    return _with_targets(split, evaluation, found, f"{days} days later")


def _with_targets(split: Split, evaluation: EvaluationSet, target: np.ndarray, said: str) -> EvaluationSet:
    """Those of whom `target`, a row of the corpus's events or one that is none, is theirs and of the fold."""
    events, place = split.corpus.events, np.clip(target, 0, split.corpus.num_events - 1)
    own = (events["user"].to_numpy()[place] == evaluation.user) & (split.fold[place] == FOLDS[evaluation.fold])
    rows = np.flatnonzero(own & (place == target))
    if not len(rows):
        raise ValueError(f"no user of fold {evaluation.fold!r} has an event {said}: ask for an earlier one")
    some = evaluation.take(rows)
    item = events["item"].to_numpy()[target[rows]].astype(some.target_item.dtype)
    return dataclasses.replace(some, target_event=target[rows], target_item=item)
