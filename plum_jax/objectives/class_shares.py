"""Cross-entropy with a distribution over classes: of counts, or what a teacher says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from plum_jax.objectives.kernels import with_attention_on

Sums = tuple[jax.Array, jax.Array, dict]


@dataclasses.dataclass(frozen=True)
class ClassShares:
    """- sum_n w_n sum_c t_nc log softmax(logits_n)_c (with a teacher's shares for t: Hinton et al., arXiv 1503.02531,
    at temperature 1).
    """

    def on(self, network: Any, mesh: Mesh) -> OfDistributions:
        """The loss of a network of `(batch, deterministic) -> logits [B, C]`."""
        return OfDistributions(with_attention_on(network, mesh))


@dataclasses.dataclass(frozen=True)
class OfDistributions:
    """`ClassShares` of one network."""

    network: Any

    def __call__(self, params: Mapping, batch: Mapping[str, jax.Array], rng: jax.Array | None) -> Sums:
        """Sums over a batch with "shares" [B, C], rows that add to 1, and "weight" [B]; `rng` None: no dropout.

        Metrics: "cross_entropy", and "accuracy", how much of the distribution lies on the class that is held likeliest.
        """
        rngs = None if rng is None else {"dropout": rng}
        logits = self.network.apply({"params": params}, batch, deterministic=rng is None, rngs=rngs)
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
        shares, weight = batch["shares"].astype(jnp.float32), batch["weight"].astype(jnp.float32)
        loss, total = -jnp.sum(weight[:, None] * shares * log_probs), jnp.sum(weight)
        likeliest = log_probs == jnp.max(log_probs, axis=-1, keepdims=True)
        right = jnp.sum(weight[:, None] * jnp.where(likeliest, shares, 0.0))
        return loss, total, {"cross_entropy": (loss, total), "accuracy": (right, total)}
