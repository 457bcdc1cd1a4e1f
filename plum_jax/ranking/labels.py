"""What is predicted: a column of the events, made a label of 0 or 1."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from plum_jax.corpus.splits import FOLDS, TRAIN, Split

FOLD_NAMES = {"training": TRAIN, **FOLDS}


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledEvents:
    """The label of every event that has one.

    Attributes:
      split: which fold an event is of.
      label: float32 [E] by row of `corpus.events`: 0, 1, or NaN where there is none.
    """

    split: Split
    label: np.ndarray

    @property
    def unlabelled(self) -> int:
        """Events without a label: they are behaviours, and nothing is predicted of them."""
        return int(np.isnan(self.label).sum())

    @functools.cached_property
    def rows(self) -> Mapping[str, np.ndarray]:
        """ "training", "validation" and "test" -> int64 [n], ascending rows of the labelled events of that fold."""
        labelled = ~np.isnan(self.label)
        return {name: np.flatnonzero((self.split.fold == fold) & labelled) for name, fold in FOLD_NAMES.items()}


@dataclasses.dataclass(frozen=True)
class Label:
    """1 where a column of events is at least so much, 0 where it is less; an event without a value has no label.

    Attributes:
      field: an engagement or context column of numbers: a rating, a watch ratio, a click of 0 or 1.
      at_least: the least value that counts as 1.
    """

    field: str = "rating"
    at_least: float = 4.0

    def of(self, split: Split) -> LabelledEvents:
        """Labels of all folds.

        Raises:
          ValueError: no such column, one without numbers, or a fold that lacks one of the labels.
        """
        events = split.corpus.events
        columns = [name for name in events.columns if name not in ("user", "item", "time", "fold")]
        if self.field not in columns:
            there = ", ".join(columns) or "none besides user, item and time"
            raise ValueError(
                f"corpus {split.corpus.name!r} has no column {self.field!r} of events to make labels of; it has "
                f"{there}: set labels.Label.field"
            )
        values = events[self.field]
        if not (values.dtype.is_numeric() or values.dtype == bool):
            raise ValueError(
                f"column {self.field!r} of corpus {split.corpus.name!r} is {values.dtype}, expected numbers: a label "
                f"is 1 from {self.at_least} on"
            )
        numbers = values.cast(float).fill_null(float("nan")).to_numpy()
        label = np.where(np.isnan(numbers), np.nan, numbers >= self.at_least).astype(np.float32)
        found = LabelledEvents(split, label)
        for fold in FOLD_NAMES:
            self._require_both(found, fold)
        return found

    def _require_both(self, events: LabelledEvents, fold: str) -> None:
        rows = events.rows[fold]
        ones = int(events.label[rows].sum())
        if 0 < ones < len(rows):
            return
        said = f"all of its {len(rows):,} labelled events are {int(ones > 0)}" if len(rows) else "no event has a label"
        raise ValueError(
            f"fold {fold!r} of corpus {events.split.corpus.name!r}: {said} by {self.field} >= {self.at_least}, but "
            "AUC and training need both labels: choose another labels.Label.at_least, or another split"
        )
