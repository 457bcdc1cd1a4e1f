"""What was known before each event, as the statistics that the texts verbalise: nothing of the event or a later one."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import TRAIN
from plum_jax.ranking.labels import LabelledEvents
from plum_jax.ranking.past import SHRUNK_BY

_MOST_CATEGORIES = 64  # more are not kinds that a user has a habit of


@dataclasses.dataclass(frozen=True, eq=False)
class Past:
    """Columns float64 [E] by event; NaN where nothing was known.

    Attributes:
      standing: share of the training events whose item's mean label, as known before them, is higher than that of this
        event's item as known before it; of training events at earlier times alone, so NaN without a common clock.
      liked: share of label 1 among the user's labelled events in rows before.
      liked_kind: the same, each event counted as often as it shares a category with this event's item.
    """

    standing: np.ndarray
    liked: np.ndarray
    liked_kind: np.ndarray

    @classmethod
    def of(cls, events: LabelledEvents, categories: list[list[str]]) -> Past:
        """Of the labels of a split and the categories of each item.

        The user's own events count whatever their fold, as rankers read behaviours; those of others only where they
        are training events.
        """
        corpus = events.split.corpus
        liked, count = _before(corpus, np.nan_to_num(events.label)), _before(corpus, ~np.isnan(events.label))
        return cls(_standing(events), _share(liked, count), _of_kind(events, categories))


def _before(corpus: Corpus, values: np.ndarray) -> np.ndarray:
    """float64 [E]: the sum of values over the same user's rows before."""
    running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    first = corpus.history_offsets[corpus.events["user"].to_numpy()]
    return running[:-1] - running[first]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _standing(events: LabelledEvents) -> np.ndarray:
    corpus = events.split.corpus
    # All of them, where a ranker learns from some alone: whoever counts ratings counts all.
    rows = np.flatnonzero((events.split.fold == TRAIN) & ~np.isnan(events.label))
    if corpus.clock != "absolute":
        return np.full(corpus.num_events, np.nan)
    # An item's events in order of time: a key is item, then time.
    moment = np.unique(corpus.events["time"].to_numpy(), return_inverse=True)[1]
    first = corpus.events["item"].to_numpy().astype(np.int64) * (moment.max() + 1)
    key = first + moment
    order = np.argsort(key[rows], kind="stable")
    keys = key[rows][order]
    running = np.concatenate([[0.0], np.cumsum(events.label[rows][order], dtype=np.float64)])
    start, stop = np.searchsorted(keys, first), np.searchsorted(keys, key)
    count, overall = stop - start, float(events.label[rows].mean())
    mean = (running[stop] - running[start] + SHRUNK_BY * overall) / (count + SHRUNK_BY)
    known = count > 0
    of_training = np.sort(mean[rows][known[rows]])
    higher = len(of_training) - np.searchsorted(of_training, mean, side="right")
    return np.where(known, higher / max(len(of_training), 1), np.nan)


def _of_kind(events: LabelledEvents, categories: list[list[str]]) -> np.ndarray:
    corpus = events.split.corpus
    names = sorted({name for some in categories for name in some})[:_MOST_CATEGORIES]
    item, labelled = corpus.events["item"].to_numpy(), ~np.isnan(events.label)
    liked, count = np.zeros(corpus.num_events), np.zeros(corpus.num_events)
    for name in names:
        has = np.array([name in some for some in categories])[item]
        liked += has * _before(corpus, has * np.nan_to_num(events.label))
        count += has * _before(corpus, has & labelled)
    return _share(liked, count)
