"""Tasks as examples of one form: a task, a query, a source item, a moment of a user, and the item that was taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from plum_jax.corpus.splits import FOLDS, TRAIN, EvaluationSet, Split
from plum_jax.queries.category_paths import ItemQueries
from plum_jax.retrieval.recommend import select_rows

SEARCH, SIMILAR, HOMEPAGE = "search", "similar", "homepage"
TASKS = (SEARCH, SIMILAR, HOMEPAGE)  # a task's id is its place
KNOWN_SEARCH = "search_known"  # what is judged besides: searches with queries that are in training
NO_SOURCE, NO_QUERY, NO_EVENT = -1, 0, -1


def check_tasks(tasks: Sequence[str]) -> None:
    """Raises `ValueError` for a task that is none of `TASKS`, one twice, or no task."""
    for task in tasks:
        if task not in TASKS:
            raise ValueError(f"unknown task {task!r}: expected tasks among {', '.join(TASKS)}")
    if not tasks or len(set(tasks)) < len(tasks):
        raise ValueError(f"expected at least one task, each once, got {tuple(tasks)}")


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Columns [n] of examples.

    Attributes:
      task: int32, id of the task.
      query: int32, row of the query table (`queries_of_rows`); `NO_QUERY`: none.
      source: int32, item; `NO_SOURCE`: none.
      event: int64, row of `corpus.events` before which the user is looked at; `NO_EVENT`: nobody.
      target: int32, item that was taken.
    """

    task: np.ndarray
    query: np.ndarray
    source: np.ndarray
    event: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.task)

    def columns(self) -> dict[str, np.ndarray]:
        """By name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def joined(parts: Sequence[Examples]) -> Examples:
    """One after another."""
    columns = [part.columns() for part in parts]
    return Examples(**{name: np.concatenate([part[name] for part in columns]) for name in columns[0]})


def queries_of_rows(queries: ItemQueries, texts: Sequence[str]) -> list[str]:
    """Row of the query table -> its text: nothing, the queries, and for each item its text, the imputed query."""
    return ["", *queries.texts, *texts]


def _query_of_source(queries: ItemQueries, source: np.ndarray) -> np.ndarray:
    """int32: the row of the query that a source item stands for (imputation: its own words)."""
    return (1 + len(queries.texts) + source).astype(np.int32)


def _examples(task: str, queries: ItemQueries, source: np.ndarray, event: np.ndarray, target: np.ndarray) -> Examples:
    """Of one task, what it has not imputed or null: search has no source, the homepage neither."""
    size = len(target)
    if task == SEARCH:
        query = 1 + queries.of_item[target]
    elif task == SIMILAR:
        query = _query_of_source(queries, source)
    else:
        query = np.full(size, NO_QUERY)
    source = source if task == SIMILAR else np.full(size, NO_SOURCE)
    columns = {"query": query, "source": source, "target": target}
    return Examples(
        task=np.full(size, TASKS.index(task), np.int32),
        event=event.astype(np.int64),
        **{name: values.astype(np.int32) for name, values in columns.items()},
    )


def training_examples(split: Split, queries: ItemQueries, task: str) -> Examples:
    """Training events as examples of a task, guarded against leaks.

    Search: every event whose item has a query that is not held out. Similar items: every event but a user's first, from
    the item of the event before. Homepage: every event but a user's first.

    Raises:
      ValueError: no example.
    """
    events = split.training_events()
    split.check_no_leak(events, used_by="UniCoRn")
    item, event = events["item"].to_numpy(), events["event"].to_numpy()
    user = events["user"].to_numpy()
    follows = np.diff(user, prepend=-1) == 0
    source = np.where(follows, np.roll(item, 1), NO_SOURCE)
    if task == SEARCH:
        number = queries.of_item[item]
        chosen = (number >= 0) & (queries.fold[number] == TRAIN)
    else:
        chosen = follows
    if not chosen.any():
        raise ValueError(f"task {task!r} has no training example in corpus {split.corpus.name!r}")
    return _examples(task, queries, source[chosen], event[chosen], item[chosen])


def evaluation_examples(
    split: Split, queries: ItemQueries, task: str, fold: str, at_most: int | None
) -> tuple[EvaluationSet, Examples]:
    """One example a user of a fold, evenly spread over the users: what is found for the user's target.

    Search: users whose target's query is held out for this fold; `KNOWN_SEARCH`: those whose target's query is not held
    out. Similar items: from the last item of the history.

    Args:
      split, queries: of the run.
      task: one of `TASKS`, or `KNOWN_SEARCH`.
      fold: "validation" or "test".
      at_most: examples; None: all.

    Raises:
      ValueError: no user has such an example.
    """
    everybody = split.evaluation(fold)
    chosen = np.diff(everybody.history_offsets) > 0
    if task in (SEARCH, KNOWN_SEARCH):
        number = queries.of_item[everybody.target_item]
        chosen = (number >= 0) & (queries.fold[number] == (FOLDS[fold] if task == SEARCH else TRAIN))
    rows = np.flatnonzero(chosen)
    if not len(rows):
        raise ValueError(f"task {task!r} has no example of fold {fold!r} in corpus {split.corpus.name!r}")
    users = everybody.take(rows[select_rows(len(rows), at_most)])
    source = np.full(len(users), NO_SOURCE)
    if task == SIMILAR:
        source = users.history_items[users.history_offsets[1:] - 1]
    task = SEARCH if task == KNOWN_SEARCH else task
    return users, _examples(task, queries, source, users.target_event, users.target_item)
