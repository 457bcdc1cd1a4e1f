"""What is compared: a ranker learns one label of events, and then scores any events by how likely they bear it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from plum_jax.ranking.labels import Label
from plum_jax.stages import Stages


class FittedRanker(Protocol):
    """A ranker that is ready to score.

    Attributes:
      fingerprint: of all that decides its scores.
      facts: what else its row says: seed, parameters, train_seconds...
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n], logits of label 1 of events, by their rows (int [n]) of `corpus.events`.

        Of a row may be read who, what and when, and everything of the same user in rows before it; nothing after it,
        and nothing that is known only once it has happened.
        """


class Ranker(Protocol):
    """A frozen dataclass, bound in gin. To add one, write a class with this method anywhere: nothing is registered."""

    def fit(self, stages: Stages, label: Label, name: str) -> FittedRanker:
        """Trains on the labelled events of `stages.split` that are training events, or reads what was trained and goes
        on where it was.

        Args:
          stages: corpus and split; what else a ranker reads of them is made.
          label: what is predicted.
          name: of its row; what it keeps lies in `stages.directory / "rankers" / name`.
        """
