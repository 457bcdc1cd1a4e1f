"""The next n items of each position by a softmax over items, and auxiliary targets beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from plum_jax.model.repeats import last_occurrences
from plum_jax.objectives.kernels import attention_on
from plum_jax.objectives.seen_items import with_seen, without_seen

Sums = tuple[jax.Array, jax.Array, dict[str, tuple[jax.Array, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class NextItems:
    """Multi-token prediction (arXiv 2404.19737, there over words) and auxiliary targets (Netflix), each with a weight:

        loss = sum_t w_t0 CE_t0 + further_weight * sum_k>0 w_tk CE_tk + sum_a weight_a * w_ta CE_ta

    divided by the sum of w_t0. The network says how many tokens, and how many buckets an auxiliary target has.

    Attributes:
      further_weight: of each token behind the next; the paper's 1.
      auxiliary_weights: of each auxiliary target, in the network's order.
    """

    further_weight: float = 1.0
    auxiliary_weights: tuple[float, ...] = ()

    def on(self, network: Any, mesh: Mesh) -> NextItemsLoss:
        """The loss of a network with `outputs(batch, deterministic)`, as `systems.trunk.network.TrunkNetwork`."""
        return NextItemsLoss(network.clone(attention=attention_on(mesh)), self)


@dataclasses.dataclass(frozen=True)
class NextItemsLoss:
    """`NextItems` of one network."""

    network: Any
    objective: NextItems

    def __call__(self, params: Mapping, batch: Mapping[str, jax.Array], rng: jax.Array | None) -> Sums:
        """Sums of loss and weight over packed rows; `rng` None: no dropout.

        Args:
          params: of the network.
          batch: what the network reads, "target_items" int32 `[B, T, n]` with "target_weights" float32, "auxiliary"
            int32 `[B, T, A]` (0: unknown, no target), and "drawn_items" int32 `[B, k]` with "drawn_log_q" float32: what
            stands for all items that are learnt. Where every item is drawn, it is the full softmax.
          rng: of dropout.
        """
        rngs = None if rng is None else {"dropout": rng}
        apply, goal = self.network.apply, self.objective
        output = apply({"params": params}, batch, deterministic=rng is None, rngs=rngs, method="outputs")
        weights = batch["target_weights"]
        nats = item_nats(output, batch)
        by_offset = jnp.sum(nats * weights, axis=(0, 1)), jnp.sum(weights, axis=(0, 1))
        loss, weight = by_offset[0][0], by_offset[1][0]
        trained = jnp.count_nonzero(weights[..., 0]).astype(jnp.float32), jnp.float32(weights[..., 0].size)
        metrics = {"cross_entropy": (loss, weight), "trained_share": trained}
        if weights.shape[-1] > 1:
            further = jnp.sum(by_offset[0][1:])
            loss += goal.further_weight * further
            metrics["further_cross_entropy"] = (further, jnp.sum(by_offset[1][1:]))
        for number, (logits, share) in enumerate(zip(output.auxiliary, goal.auxiliary_weights, strict=True)):
            target = batch["auxiliary"][..., number]
            counts = weights[..., 0] * (target > 0)
            found = jnp.sum(category_nats(logits, target) * counts)
            loss += share * found
            metrics[f"auxiliary_cross_entropy_{number + 1}"] = (found, jnp.sum(counts))
        return loss, weight, metrics


def item_nats(output: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
    """-log p of each target, float32 `[B, T, n]`."""
    targets, states = batch["target_items"], output.states
    drawn, log_q = (batch[name].reshape(-1) for name in ("drawn_items", "drawn_log_q"))
    others = jnp.take(output.vectors, drawn, axis=0)
    own = jnp.sum(states * jnp.take(output.vectors, targets, axis=0), axis=-1)
    # A drawn item stands for 1 / (K q) items (logQ), so that the normaliser is that of all items in expectation.
    scores = jnp.einsum("BTnD,KD->BTnK", states, others) - log_q - jnp.log(len(drawn))
    scores = jnp.where(drawn == targets[..., None], -jnp.inf, scores)
    normaliser = jax.nn.logsumexp(scores, axis=-1)
    read = batch["decoder_input_tokens"]
    last, age = last_occurrences(read, batch["decoder_segment_ids"])
    worth = jnp.take(output.repeat_worth, age)[:, :, None]
    is_target = read[:, None, None, :] == targets[..., None]
    seen = jnp.einsum("BTnD,BSD->BTnS", states, jnp.take(output.vectors, read, axis=0))
    seen = without_seen(seen, last[:, :, None] & ~is_target)
    normaliser = with_seen(normaliser, seen, worth, everything=len(drawn) >= len(output.vectors))
    own += jnp.sum(jnp.where(last[:, :, None] & is_target, worth, 0.0), axis=-1)
    return jnp.logaddexp(normaliser, own) - own


def category_nats(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-log p of categories int32 `[B, T]` of logits `[B, T, W]`."""
    # As a masked sum: its gradient is elementwise, that of a gather is a scatter.
    chosen = target[..., None] == jnp.arange(logits.shape[-1])
    return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jnp.where(chosen, logits, 0.0), axis=-1)
