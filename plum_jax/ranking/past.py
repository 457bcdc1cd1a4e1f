"""Continued training: a ranker that learns from later events may inherit features, or parameters, of earlier ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from plum_jax.corpus.event_fields import EventFields, Numbers, quantile_edges
from plum_jax.ranking.labels import LabelledEvents
from plum_jax.stages import Stages
from plum_jax.training import saved_params

SHRUNK_BY = 10.0  # events of the mean label that stand beside a user's or an item's own


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenEvents(LabelledEvents):
    """Labelled events of which only some are trained on.

    Attributes:
      chosen: int64 [n], ascending rows of the labelled training events that are.
    """

    chosen: np.ndarray

    @property
    def rows(self) -> Mapping[str, np.ndarray]:
        """As `LabelledEvents.rows`."""
        return {**super().rows, "training": self.chosen}


def training_share(events: LabelledEvents, share: tuple[float, float]) -> LabelledEvents:
    """The labelled training events from one share of them to another, in order of time: (0.5, 1.0) is the later half.

    Raises:
      ValueError: no such share, times that users do not share, or one label only in it.
    """
    share = (float(share[0]), float(share[1]))
    if share == (0.0, 1.0):
        return events
    if not 0 <= share[0] < share[1] <= 1:
        raise ValueError(f"expected training_share (from, to) with 0 <= from < to <= 1, got {share}")
    corpus = events.split.corpus
    if corpus.clock != "absolute":
        raise ValueError(
            f"training_share {share} is of all users' time, but the clock of corpus {corpus.name!r} is "
            f"{corpus.clock!r}: use (0.0, 1.0), or a source with unix times"
        )
    rows = events.rows["training"]
    order = np.argsort(corpus.events["time"].to_numpy()[rows], kind="stable")
    start, stop = (round(end * len(rows)) for end in share)
    chosen = np.sort(rows[order[start:stop]])
    if len(np.unique(events.label[chosen])) != 2:
        raise ValueError(f"training_share {share} has {len(chosen)} events of one label: choose more")
    return ChosenEvents(events.split, events.label, chosen)


def past_statistics(events: LabelledEvents) -> EventFields:
    """What the training events of `events` say of users and items, as fields of all events of the corpus: the mean
    label of each, shrunk to that of all, and how many there were; cut at quantiles.

    Whoever reads it must not be trained on these events: they hold their own labels.
    """
    corpus, rows = events.split.corpus, events.rows["training"]
    label, names, fields, columns = events.label[rows].astype(np.float64), [], [], []
    for who, size in (("user", corpus.num_users), ("item", corpus.num_items)):
        of_all = corpus.events[who].to_numpy()
        total, count = (np.bincount(of_all[rows], weights=w, minlength=size) for w in (label, np.ones_like(label)))
        mean = (total + SHRUNK_BY * label.mean()) / (count + SHRUNK_BY)
        for what, values in (("mean label", mean), ("events", np.log1p(count))):
            names.append(f"{who}'s {what}")
            fields.append(Numbers(quantile_edges(values)))
            columns.append(fields[-1].buckets(pl.Series(values))[of_all])
    return EventFields(tuple(names), tuple(fields), np.stack(columns, axis=1))


def inherited_params(stages: Stages, name: str) -> Any:
    """Parameters of a ranker of the run that was trained before.

    Raises:
      ValueError: there is none of that name.
    """
    directory = stages.directory / "rankers" / name / "params"
    if not epath.Path(directory).exists():
        raise ValueError(
            f"warm_start: there is no trained ranker {name!r} in {stages.directory}: put it before in RANKERS"
        )
    return saved_params.load_params(directory)
