"""Behaviour: what queries like a query have converted to."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse

from plum_jax.query_understanding.log import QueryLog
from plum_jax.query_understanding.similar import ByWords, SimilarityIndex, SimilarQueries


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """What queries like a query have converted to most (an `Evidence`).

    Attributes:
      similar: which training queries count, and how much.
      most: categories of a prompt at most.
    """

    similar: SimilarQueries = ByWords()
    most: int = 5

    def index(self, log: QueryLog) -> SimilarityIndex:
        """Of the training queries."""
        return self.similar.index([log.texts[query] for query in log.learnt_queries])

    def counts(self, log: QueryLog, events: np.ndarray) -> scipy.sparse.csr_array:
        """float32 [known, C], what each converted to in these events int [E]."""
        return log.counts(events)[log.learnt_queries]
