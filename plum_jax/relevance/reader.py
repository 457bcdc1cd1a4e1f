"""What training, scoring and judging know of an encoder: how it reads queries and pairs, and what it says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from plum_jax.feeds.batches import Batch
from plum_jax.relevance.pairs import Pairs


class PairScorer(Protocol):
    """Parameters, ready to be asked; what of the items does not hang on a query is computed."""

    def logits(self, queries: Any, pairs: Pairs) -> np.ndarray:
        """float32 [n, C], of what the reader reads of queries, and pairs of them by number."""


class PairReader(Protocol):
    """A `CrossReader` or a `BiReader`: the items of a data set as they are read, and the network over pairs."""

    @property
    def network(self) -> Any:
        """A Linen module of `(batch, deterministic)` that gives logits float32 [B, C]."""

    @property
    def fingerprint(self) -> str:
        """Of all that is read."""

    @property
    def queries(self) -> Any:
        """What is read of the data's queries."""

    @property
    def reading_params(self) -> Any:
        """Parameters beside the network's that reading a query takes; none: an empty dictionary."""

    def read_queries(self, texts: Sequence[str]) -> Any:
        """What is read of queries, the data's or others."""

    def lengths(self, queries: Any, pairs: Pairs) -> np.ndarray:
        """int [n], how large each pair is; those of one batch are about equal."""

    def columns(self, queries: Any, pairs: Pairs) -> Batch:
        """Of the network."""

    def initial(self, network: Any, start: Any, key: jax.Array) -> Any:
        """Parameters with their logical axes: those of `start`, or first ones where it is None."""

    def scorer(self, params: Any) -> PairScorer:
        """Parameters, ready to be asked."""
