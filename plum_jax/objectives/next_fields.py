"""Self-supervision on mixed fields: every field of the next event from the state behind the events so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from plum_jax.objectives.item_losses import SampledSoftmax
from plum_jax.objectives.kernels import attention_on

Sums = tuple[jax.Array, jax.Array, dict]


@dataclasses.dataclass(frozen=True)
class NextFields:
    """Cross-entropy of the next event's buckets, and of its counterparty by a sampled softmax with logQ; summed.

    Attributes:
      counterparty: of the counterparty's row of the table.
      counterparty_weight: of its loss; a field's is 1.
    """

    counterparty: SampledSoftmax = SampledSoftmax(512)
    counterparty_weight: float = 0.5

    def on(self, network: Any, mesh: Mesh) -> OfNextFields:
        """The loss of a network with a `trunk` that has attention: `(batch, deterministic) -> (queries, logits of each
        field, table)`.
        """
        trunk = network.trunk.clone(attention=attention_on(mesh))
        return OfNextFields(network.clone(trunk=trunk), self)


@dataclasses.dataclass(frozen=True)
class OfNextFields:
    """`NextFields` of one network."""

    network: Any
    objective: NextFields

    def __call__(self, params: Mapping, batch: Mapping[str, jax.Array], rng: jax.Array | None) -> Sums:
        """Sums over the events that have a next one; `rng` None: no dropout, and always the same draws.

        The batch has "next_<field>" int32 [B, T] for each head, "next_counterparty" and "next_weights" float32 besides
        what the network reads. Metrics: the loss of each field in nats an event, by "<field>_loss".
        """
        rngs = None if rng is None else {"dropout": rng}
        queries, logits, table = self.network.apply({"params": params}, batch, deterministic=rng is None, rngs=rngs)
        weights = batch["next_weights"]
        weight = jnp.sum(weights)
        metrics = {}
        for name, values in logits.items():
            nats = jax.nn.logsumexp(values, axis=-1) - jnp.take_along_axis(
                values, batch[f"next_{name}"][..., None], axis=-1
            ).squeeze(-1)
            metrics[f"{name}_loss"] = (jnp.sum(nats * weights), weight)
        loss = sum((total for total, _ in metrics.values()), jnp.zeros(()))
        key = jax.random.fold_in(jax.random.key(0) if rng is None else rng, 1)
        nats = self.objective.counterparty.losses(queries, table.astype(jnp.float32), batch["next_counterparty"], key)
        metrics["counterparty_loss"] = (jnp.sum(nats * weights), weight)
        return loss + self.objective.counterparty_weight * metrics["counterparty_loss"][0], weight, metrics
