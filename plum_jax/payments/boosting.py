"""The rivals: gradient boosting on hand-made features, as the Fraud Detection Handbook makes them, and a rule."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from threadpoolctl import threadpool_limits

from plum_jax import artifact
from plum_jax.evaluation.metrics.detection import average_precision
from plum_jax.payments.detector import FOLDER
from plum_jax.payments.events import DAY, KnownLabels
from plum_jax.payments.past import Past
from plum_jax.payments.risk import RISK_DAYS, known_risk
from plum_jax.payments.trunk import FittedTrunk, Trunk

KIND = "boosting"
_SCORES = "scores.npy"
_PIECE = 200_000  # payments scored together: scikit-learn copies them as float64


@dataclasses.dataclass(frozen=True)
class Boosting:
    """scikit-learn's HistGradientBoostingClassifier on `handmade_features`.

    Attributes:
      iterations: trees at most; as many are used as have the highest average precision of the validation payments.
      learning_rate, leaves: of the trees.
      trunks: name of a directory in `trunks/` -> trunk, whose vectors are further features; {}: none.
      seed: of the draws of bins.
      threads: of OpenMP. Where other work has the cores, threads that wait for each other at every node of a tree take
        many times as long as one.
    """

    iterations: int = 200
    learning_rate: float = 0.1
    leaves: int = 31
    trunks: Mapping[str, Trunk] = dataclasses.field(default_factory=dict)
    seed: int = 0
    threads: int = dataclasses.field(default=1, metadata=artifact.NOT_DESCRIBED)

    def fit(self, labels: KnownLabels, directory: epath.Path, name: str) -> FittedScores:
        """Trains, or reads what was trained, the artefact "boosting": a score of each payment."""
        folder, inputs = epath.Path(directory) / FOLDER / name, {"labels": labels.fingerprint}
        fitted = {one: trunk.fit(labels.payments, directory, one) for one, trunk in self.trunks.items()}
        inputs |= {f"trunk {one}": trunk.fingerprint for one, trunk in fitted.items()}
        if not artifact.is_current(folder, kind=KIND, config=self, inputs=inputs):
            import sklearn.ensemble  # noqa: F401, its OpenMP must be loaded to be bounded

            with threadpool_limits(self.threads, user_api="openmp"):
                self._make(labels, folder, inputs, list(fitted.values()))
        manifest = artifact.read_manifest(folder, KIND)
        with (folder / _SCORES).open("rb") as file:
            scores = np.load(file)
        told = json.loads((folder / "facts.json").read_text())
        return FittedScores(scores, manifest.fingerprint, {"seed": self.seed, **told})

    def _make(
        self, labels: KnownLabels, folder: epath.Path, inputs: Mapping[str, str], trunks: Sequence[FittedTrunk]
    ) -> None:
        vectors, began = [trunk.vectors(labels.payments) for trunk in trunks], time.perf_counter()
        features = np.concatenate([handmade_features(labels).astype(np.float32), *vectors], axis=1)
        payments = labels.payments
        rows, judged = labels.training_rows, payments.labelled.rows["validation"]
        curve = [
            average_precision(payments.fraud[judged], found)
            for found in self._fitted(features[rows], payments.fraud[rows], self.iterations).staged_decision_function(
                features[judged]
            )
        ]
        # The first trees of a longer training are those of a shorter one.
        trees = int(np.argmax(curve)) + 1
        model = self._fitted(features[rows], payments.fraud[rows], trees)
        pieces = np.array_split(np.arange(len(features)), max(1, len(features) // _PIECE))
        scores = np.concatenate([model.decision_function(features[piece]) for piece in pieces])
        facts = {"trees": trees, "features": features.shape[1], "train_seconds": round(time.perf_counter() - began, 1)}
        write_scores(folder, scores.astype(np.float32), facts, config=self, inputs=inputs)

    def _fitted(self, features: np.ndarray, labels: np.ndarray, trees: int) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier  # takes a second to import

        return HistGradientBoostingClassifier(
            max_iter=trees,
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.leaves,
            early_stopping=False,
            random_state=self.seed,
        ).fit(features, labels)


@dataclasses.dataclass(frozen=True)
class AmountRule:
    """The rule "an amount above so much is a fraud" (the Handbook's scenario 1); it learns nothing.

    Attributes:
      above: the amount.
    """

    above: float = 220.0

    def fit(self, labels: KnownLabels, directory: epath.Path, name: str) -> FittedScores:
        """Nothing is trained or kept."""
        scores = (labels.payments.amount > self.above).astype(np.float32)
        return FittedScores(scores, artifact.fingerprint(labels.payments.fingerprint, self), {"above": self.above})


@dataclasses.dataclass(frozen=True, eq=False)
class FittedScores:
    """A detector that has scored every payment.

    Attributes:
      all_scores: float32 [E].
      fingerprint: of them.
      facts: for its row.
    """

    all_scores: np.ndarray
    fingerprint: str
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n], of payments by their rows."""
        return self.all_scores[rows]


def write_scores(
    folder: epath.Path, scores: np.ndarray, facts: Mapping[str, Any], *, config: Any, inputs: Mapping[str, str]
) -> None:
    """The artefact "boosting": float32 scores [E] of all payments, and facts."""

    def write(aside: epath.Path) -> None:
        with (aside / _SCORES).open("wb") as file:
            np.save(file, scores)
        artifact.write_json(aside / "facts.json", dict(facts))

    artifact.write_artifact(
        folder, kind=KIND, fingerprint=artifact.fingerprint(scores), config=config, inputs=inputs, write=write
    )


def handmade_features(labels: KnownLabels) -> np.ndarray:
    """float64 [E, 26].

    The first 15 are those of the Handbook's chapter 3: amount, weekend, night (until 6 o'clock); the customer's
    payments and mean amount in 1, 7 and 30 days until and with this one; the merchant's payments and share of known
    frauds in 1, 7 and 30 days, `delay_days` ago. The others are what the networks are told besides: the same of the
    customer's known frauds, payments and mean amount at the merchant in the last 10 minutes and the last hour, this one
    left out, and days since the customer was there last (-1: not within 30).
    """
    payments = labels.payments
    when, amount = payments.time, payments.amount
    hour, weekday = when // 3600 % 24, (when // DAY + 3) % 7
    found = [amount, weekday >= 5, hour <= 6]
    customer = Past(payments.key("user"), when, amount=amount)
    for days in RISK_DAYS:
        window = customer.window(payments.key("user"), when - days * DAY, when + 1)
        found += [window["count"], window["amount"] / window["count"]]
    found += [*known_risk(labels, "item").T, *known_risk(labels, "user").T]
    merchant = Past(payments.key("item"), when, amount=amount)
    for seconds in (600, 3600):
        window = merchant.window(payments.key("item"), when - seconds, when)
        found += [window["count"], window["amount"] / np.maximum(window["count"], 1)]
    pair = payments.key("user").astype(np.int64) * payments.num_keys("item") + payments.key("item")
    last = Past(pair, when).since_last(pair, when) / DAY
    found.append(np.where((last < 0) | (last > max(RISK_DAYS)), -1, last))
    return np.stack(found, axis=1).astype(np.float64)
