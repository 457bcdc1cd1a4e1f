"""Softmax over a pool of items, corrected by how often each is in a pool: the rival of the hinge."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from plum_jax.objectives.info_nce import LEAST
from plum_jax.objectives.scored_pool import ScoredPool
from plum_jax.objectives.threshold_hinge import OfPool


@dataclasses.dataclass(frozen=True)
class PoolSoftmax:
    """-log softmax of the own item's score / temperature beside the negatives' (logQ: Yi et al., RecSys 2019).

    The log of an item's expected count in the pool is taken from every score in training, so that what ranks is not
    bent against popular items. Hard negatives have their weight by the softmax itself, at every step.

    Attributes:
      temperature: of cosines.
    """

    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"expected a positive temperature, got {self.temperature}")

    def on(self, network: Any, mesh: Mesh) -> OfPool:
        """The loss of a network with the method `pool(batch, deterministic)`, a `ScoredPool`."""
        return OfPool(network, self)

    def losses(self, pool: ScoredPool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """float32 [B], and no parts. The batch's own items are the first of the pool, in the order of the queries."""
        own = pool.own / self.temperature - pool.log_count[: len(pool.own)]
        others = jnp.where(pool.negative, pool.scores / self.temperature - pool.log_count, LEAST)
        return jnp.logaddexp(own, jax.nn.logsumexp(others, axis=1)) - own, {}
