"""Behaviour: what queries like a query have converted to."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.query_understanding.log import QueryLog
from plum_jax.query_understanding.similar import ByWords, Conversions, SimilarQueries


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """What queries like a query have converted to most (an `Evidence`).

    Attributes:
      similar: which training queries count, and how much.
      most: categories of a prompt at most.
    """

    similar: SimilarQueries = ByWords()
    most: int = 5

    def known(self, log: QueryLog, events: np.ndarray) -> Conversions:
        """What training queries converted to in these events int [E]."""
        learnt = log.learnt_queries
        return Conversions(self.similar.index([log.texts[query] for query in learnt]), log.counts(events)[learnt])
