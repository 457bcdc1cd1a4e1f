"""A hinge on either side of a fixed threshold: what is relevant scores above it, what is not below."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from plum_jax.objectives.scored_pool import ScoredPool


@dataclasses.dataclass(frozen=True)
class ThresholdHinge:
    """max(0, t + m - s) of an own item and max(0, s - (t - m)) of a negative (Etsy, arXiv 2306.04833, §4.5).

    A pairwise loss only orders the items of a query; this one fixes where relevance ends while it is trained, so that
    what scores below t can be dropped at retrieval. The losses of two kinds of negatives, the uniform draws and the
    `hard` ones with the highest scores of the pool, are weighed by the batch's "hard_weight" (§4.4: the weight of the
    uniform ones falls linearly, that of the hard ones rises). Of each kind it is the mean over those that violate their
    margin: of many draws few do, and a mean over all would fade. Deviations: margins per kind of interaction are not
    confirmed in the text that could be read; there is one.

    Attributes:
      threshold: t, of cosines.
      margin: m.
      hard: negatives of the highest scores, for each query; at most those of the pool.
      negative_weight: of negatives beside the own item's 1: the larger, the fewer items score above the threshold,
        relevant ones among them.
    """

    threshold: float = 0.5
    margin: float = 0.1
    hard: int = 16
    negative_weight: float = 0.75

    def __post_init__(self) -> None:
        if not -1 < self.threshold - self.margin <= self.threshold + self.margin < 1 or self.hard < 1:
            raise ValueError(
                f"expected threshold - margin and threshold + margin inside (-1, 1), as cosines are, a margin of at "
                f"least 0 and a hard negative at least, got {self}"
            )

    def on(self, network: Any, mesh: Mesh) -> OfPool:
        """The loss of a network with the method `pool(batch, deterministic)`, a `ScoredPool`."""
        return OfPool(network, self)

    def losses(self, pool: ScoredPool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """float32 [B], and its parts "own", "uniform" and "hard", [B] each."""
        own = jnp.maximum(self.threshold + self.margin - pool.own, 0)
        over = jnp.where(pool.negative, jnp.maximum(pool.scores - (self.threshold - self.margin), 0), 0)
        hard = jax.lax.top_k(over, min(self.hard, over.shape[1]))[0]
        parts = {"own": own, "uniform": _mean_of_positive(over * pool.uniform), "hard": _mean_of_positive(hard)}
        negatives = (1 - pool.hard_weight) * parts["uniform"] + pool.hard_weight * parts["hard"]
        return own + self.negative_weight * negatives, parts


def _mean_of_positive(values: jax.Array) -> jax.Array:
    """[B], of values [B, P] of at least 0; 0 where none is above 0."""
    return jnp.sum(values, axis=1) / jnp.maximum(jnp.sum(values > 0, axis=1), 1)


@dataclasses.dataclass(frozen=True)
class OfPool:
    """A loss of scored pools, of one network.

    Attributes:
      network: with the method `pool`.
      objective: with the method `losses`.
    """

    network: Any
    objective: Any

    def __call__(
        self, params: Mapping, batch: Mapping[str, jax.Array], rng: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, dict]:
        """Sums of loss and weight over a batch; `rng` None: no dropout. "first" is the share of queries whose own item
        scores above the whole pool.
        """
        rngs = None if rng is None else {"dropout": rng}
        pool = self.network.apply({"params": params}, batch, deterministic=rng is None, rngs=rngs, method="pool")
        losses, parts = self.objective.losses(pool)
        weight = jnp.float32(len(losses))
        best = jnp.max(jnp.where(pool.negative, pool.scores, -jnp.inf), axis=1)
        metrics = {**parts, "first": pool.own > best}
        return jnp.sum(losses), weight, {name: (jnp.sum(values), weight) for name, values in metrics.items()}
