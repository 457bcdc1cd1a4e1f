"""A blend of rankers as a system: logistic regression of hits on places in their lists, its weights in an l1 ball."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.metrics import RankedItems
from plum_jax.evaluation.system import Fitted, Ranking, System
from plum_jax.frank_wolfe.losses import Logistic
from plum_jax.frank_wolfe.problem import finite_sum
from plum_jax.frank_wolfe.sets import L1Ball
from plum_jax.frank_wolfe.solve import solve
from plum_jax.stages import Stages
from plum_jax.systems.blend.candidates import Candidates, best_of, candidates_of
from plum_jax.systems.scored_items import evaluation_users

KIND = "blend"


@dataclasses.dataclass(frozen=True)
class Blend:
    """The probability that a candidate is the user's next item, from where each system ranks it.

    log-odds = sum_s w_s / log2(rank_s + 2) + w_0, with sum |w| <= radius, fitted on the lists for validation users by
    stochastic Frank-Wolfe until its gap is at most `tolerance`; a small radius leaves out systems that add nothing.
    Lists with and without seen items have weights of their own. (Systems that choose a checkpoint by validation users
    look a little better there than they are.)

    Attributes:
      systems: name -> system; a system of the same name in the comparison is the same one, and is trained once.
      candidates: items that each system proposes to a user.
      radius: of the l1 ball; the intercept's share of it is a tenth of the log-odds that it stands for.
      tolerance: of the gap, in nats a candidate.
      passes: at most.
      max_users: validation users to fit on, evenly spread; None: all.
      seed: of the order of candidates.
    """

    systems: Mapping[str, System]
    candidates: int = 50
    radius: float = 20.0
    tolerance: float = 1e-5
    passes: int = 100
    max_users: int | None = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.systems:
            raise ValueError("Blend: expected at least one system, got none")
        if not (self.candidates > 0 and self.passes > 0 and self.radius > 0):
            raise ValueError(f"Blend: expected candidates, passes and radius > 0, got {self}")

    def fit(self, stages: Stages, name: str) -> FittedBlend:
        """Trains the systems, and their weights, unless they are there."""
        systems = {system: self.systems[system].fit(stages, system) for system in self.systems}
        directory = stages.directory / "systems" / name
        inputs = {system: fitted.fingerprint for system, fitted in systems.items()}
        if not artifact.is_current(directory, kind=KIND, config=self, inputs=inputs):
            self._write(directory, stages, systems, inputs)
        weights = {
            kind: np.array(values) for kind, values in json.loads((directory / "weights.json").read_text()).items()
        }
        return FittedBlend(systems, weights, self.candidates, self.seed)

    def _write(
        self, directory: epath.Path, stages: Stages, systems: Mapping[str, Fitted], inputs: Mapping[str, str]
    ) -> None:
        users = evaluation_users(stages.split, "validation", self.max_users)
        lists = [fitted.rank(users, self.candidates).lists for fitted in systems.values()]
        weights = {
            kind: self._weights(candidates_of([getattr(one, kind) for one in lists]), users.target_item).tolist()
            for kind in RankedItems._fields
        }
        artifact.write_artifact(
            directory,
            kind=KIND,
            fingerprint=artifact.fingerprint(weights),
            config=self,
            inputs=inputs,
            write=lambda aside: artifact.write_json(aside / "weights.json", weights),
        )

    def _weights(self, candidates: Candidates, targets: np.ndarray) -> np.ndarray:
        """float [S + 1]: of the systems, and the intercept's."""
        hits = candidates.item == targets[candidates.user]
        problem = finite_sum(candidates.features, hits, Logistic(), L1Ball(self.radius))
        batch_size = min(len(hits), 4096)
        found = solve(problem, batch_size=batch_size, passes=self.passes, tolerance=self.tolerance, seed=self.seed)
        return found.point


@dataclasses.dataclass(frozen=True, eq=False)
class FittedBlend:
    """Fitted systems and their weights.

    Attributes:
      systems: that are blended.
      weights: "items" and "unseen" -> float [S + 1].
      candidates: items that each system proposes.
      seed: of the row.
    """

    systems: Mapping[str, Fitted]
    weights: Mapping[str, np.ndarray]
    candidates: int
    seed: int

    @property
    def fingerprint(self) -> str:
        parts = [fitted.fingerprint for fitted in self.systems.values()]
        return artifact.fingerprint(*parts, *self.weights.values(), self.candidates)

    @property
    def facts(self) -> Mapping[str, Any]:
        told = [fitted.facts for fitted in self.systems.values()]
        return {
            "seed": self.seed,
            "parameters": sum(facts.get("parameters", 0) for facts in told),
            "train_seconds": round(sum(facts.get("train_seconds", 0.0) for facts in told), 1),
            "weights": {
                name: round(float(weight), 3)
                for name, weight in zip(self.systems, self.weights["unseen"], strict=False)
            },
        }

    def rank(self, evaluation: EvaluationSet, k: int) -> Ranking:
        """The first k of what the systems propose."""
        asked = max(k, self.candidates)
        lists = [fitted.rank(evaluation, asked).lists for fitted in self.systems.values()]
        items, _ = self._best([one.items for one in lists], "items", k)
        unseen, scores = self._best([one.unseen for one in lists], "unseen", k)
        return Ranking(RankedItems(items, unseen), scores)

    def _best(self, lists: Sequence[np.ndarray], kind: str, k: int) -> tuple[np.ndarray, np.ndarray]:
        candidates = candidates_of(lists)
        return best_of(candidates, candidates.features @ self.weights[kind], len(lists[0]), k)
