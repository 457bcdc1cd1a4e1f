"""What is compared: a detector learns from the labels that are known, and then scores any payments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from etils import epath

from plum_jax.payments.events import KnownLabels

FOLDER = "detectors"


class FittedDetector(Protocol):
    """A detector that is ready to score.

    Attributes:
      fingerprint: of all that decides its scores.
      facts: what else its row says: seed, parameters, train_seconds...
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n], the higher the more suspect, of payments by their rows (int [n]) of `corpus.events`.

        Of a payment may be read all but its label and kind, all payments before it, and the labels that `KnownLabels`
        has and that are `delay_days` old by then.
        """


class Detector(Protocol):
    """A frozen dataclass, bound in gin. To add one, write a class with this method anywhere: nothing is registered."""

    def fit(self, labels: KnownLabels, directory: epath.Path, name: str) -> FittedDetector:
        """Trains on the payments of `labels.training_rows`, or reads what was trained and goes on where it was.

        Args:
          labels: payments, folds, and the labels that are known.
          directory: of the run; what a detector keeps lies in `directory / FOLDER / name`.
          name: of its row.
        """
