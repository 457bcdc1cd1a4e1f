"""Log loss of a label of 0 or 1: what rankers of clicks and likes minimise."""

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
class LogLoss:
    """Binary cross-entropy, an event at a time, and a network's auxiliary loss beside it.

    Attributes:
      auxiliary_weight: of the mean of the auxiliary loss, where the network has one (DIEN, arXiv 1809.03672, eq. 7).
    """

    auxiliary_weight: float = 1.0

    def on(self, network: Any, mesh: Mesh) -> OfLabels:
        """The loss of a network of `(batch, deterministic)` whose output has `logits`, [B] or of whole histories
        [B, T], and `auxiliary_loss`, a sum and its weight or None.
        """
        return OfLabels(with_attention_on(network, mesh), self)


@dataclasses.dataclass(frozen=True)
class OfLabels:
    """`LogLoss` of one network."""

    network: Any
    objective: LogLoss

    def __call__(self, params: Mapping, batch: Mapping[str, jax.Array], rng: jax.Array | None) -> Sums:
        """Sums of loss and weight over the events of a batch with "label" float32, of the logits' shape, and where not
        all of them count "label_weights"; `rng` None: no dropout.

        Metrics: "log_loss" without the auxiliary one, "mean_prediction" and "mean_label", which are equal where the
        predictions are calibrated, "accuracy", and "auxiliary_loss" where there is one.
        """
        rngs = None if rng is None else {"dropout": rng}
        output = self.network.apply({"params": params}, batch, deterministic=rng is None, rngs=rngs)
        logits, labels = output.logits.astype(jnp.float32), batch["label"]
        weights = batch.get("label_weights", jnp.ones_like(labels))
        weight = jnp.sum(weights)
        log_loss = jnp.sum(binary_cross_entropy(logits, labels) * weights)
        metrics = {
            "log_loss": (log_loss, weight),
            "mean_prediction": (jnp.sum(jax.nn.sigmoid(logits) * weights), weight),
            "mean_label": (jnp.sum(labels * weights), weight),
            "accuracy": (jnp.sum(weights * ((logits > 0) == (labels > 0.5))), weight),
        }
        if output.auxiliary_loss is None:
            return log_loss, weight, metrics
        total, count = output.auxiliary_loss
        metrics["auxiliary_loss"] = (total, count)
        mean = total / jnp.maximum(count, 1.0)
        return log_loss + self.objective.auxiliary_weight * mean * weight, weight, metrics


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log p(label), of logits and labels of one shape; exact where a logit is large."""
    return jax.nn.softplus(logits) - labels * logits
