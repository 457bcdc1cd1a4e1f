"""The best detector there can be, where payments are simulated: how far from it a model is."""

from __future__ import annotations

import dataclasses

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.sources.card_payments import CardPayments
from plum_jax.payments.boosting import FittedScores
from plum_jax.payments.events import KnownLabels, PaymentError


@dataclasses.dataclass(frozen=True)
class BestDetector:
    """The exact posterior of an attack under the simulator's own parameters (`CardPayments.attack_log_odds`).

    Attributes:
      simulator: the one that the corpus comes from.
    """

    simulator: CardPayments = CardPayments()

    def fit(self, labels: KnownLabels, directory: epath.Path, name: str) -> FittedScores:
        """Nothing is learnt.

        Raises:
          PaymentError: the corpus is not this simulator's.
        """
        corpus, odds = labels.payments.split.corpus, self.simulator.attack_log_odds()
        if corpus.fingerprint != self.simulator.read().fingerprint:
            raise PaymentError(
                f"the best detector is known for payments of its own simulator alone, and corpus {corpus.name!r} is "
                "not its: leave it out of DETECTORS"
            )
        told = artifact.fingerprint(labels.payments.fingerprint, self)
        return FittedScores(odds.astype(np.float32), told)
