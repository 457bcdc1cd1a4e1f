"""Fewer labels: a draw of the training events, and the events of some users to be judged on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from plum_jax.corpus.splits import FOLDS, Split
from plum_jax.ranking.labels import Label, LabelledEvents


@dataclasses.dataclass(frozen=True, eq=False)
class SomeEvents(LabelledEvents):
    """Labelled events of which some are trained and judged on; all keep their labels, as behaviours have them.

    Attributes:
      some: fold's name -> int64 [n], ascending rows.
    """

    some: Mapping[str, np.ndarray]

    @property
    def rows(self) -> Mapping[str, np.ndarray]:
        """As `LabelledEvents.rows`."""
        return self.some


@dataclasses.dataclass(frozen=True)
class SampledLabel(Label):
    """A label whose rankers learn from few events: what sample efficiency is measured by.

    Attributes:
      training: labelled training events, drawn once for all rankers; None: all.
      users: users whose validation and test events are judged, evenly spread over those that have any; None: all.
      seed: of the draw.
    """

    training: int | None = None
    users: int | None = None
    seed: int = 0

    def of(self, split: Split) -> LabelledEvents:
        """Labels of all folds.

        Raises:
          ValueError: as `Label.of`, more training events than there are, fewer than two, or no user.
        """
        events = super().of(split)
        some = {name: self._judged(events, name) for name in FOLDS} | {"training": self._drawn(events)}
        return SomeEvents(split, events.label, some)

    def _drawn(self, events: LabelledEvents) -> np.ndarray:
        rows = events.rows["training"]
        if self.training is None:
            return rows
        if not 2 <= self.training <= len(rows):
            raise ValueError(f"expected 2 to {len(rows):,} training events, as many as there are, got {self.training}")
        return np.sort(np.random.default_rng(self.seed).choice(rows, self.training, replace=False))

    def _judged(self, events: LabelledEvents, fold: str) -> np.ndarray:
        rows = events.rows[fold]
        if self.users is None:
            return rows
        if self.users < 1:
            raise ValueError(f"expected at least one user to judge, got {self.users}")
        user = events.split.corpus.events["user"].to_numpy()[rows]
        everybody = np.unique(user)
        places = np.linspace(0, len(everybody) - 1, min(self.users, len(everybody))).astype(int)
        return rows[np.isin(user, everybody[places])]
