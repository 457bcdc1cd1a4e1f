"""What is compared: a system is trained on the shared stages and then ranks all items for the users of a fold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.metrics import RankedItems
from plum_jax.stages import Stages


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """What a fitted system recommends to U users.

    Attributes:
      lists: the first items of each user, seen ones kept and removed.
      scores: float [U, K] of `lists.unseen`, in the system's own unit; None: not known.
      sid_ranks: int32 [U], place of the target's Semantic ID among those generated (`metrics.NOT_FOUND`: not there);
        None for systems that rank items only.
      shares: name -> float [users asked], further figures of which the mean and its standard error are told.
    """

    lists: RankedItems
    scores: np.ndarray | None = None
    sid_ranks: np.ndarray | None = None
    shares: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Fitted(Protocol):
    """A system that is ready to rank.

    Attributes:
      fingerprint: of all that decides its lists: parameters, configuration of the search.
      facts: what else its row says: seed, parameters, non_embedding_parameters, train_flops, train_seconds...
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    def rank(self, evaluation: EvaluationSet, k: int) -> Ranking:
        """The first k items (at least) of each user of `evaluation`, in its order."""


class System(Protocol):
    """A frozen dataclass, bound in gin. To add one, write a class with this method anywhere: nothing is registered."""

    def fit(self, stages: Stages, name: str) -> Fitted:
        """Trains on `stages.split.training_events()`, or reads what was trained and goes on where it was.

        Args:
          stages: corpus, split, features, Semantic IDs; a system reads of them what it needs, and only that is made.
          name: of its row; what it keeps lies in `stages.directory / "systems" / name`.
        """
