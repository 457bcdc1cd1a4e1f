"""InfoNCE between two towers: a user's state against the items that the batch's users took."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from plum_jax.objectives.kernels import with_attention_on

MOST_SCALE = 100.0  # of the inverse temperature (CLIP, arXiv 2103.00020)
_EPSILON = 1e-12
LEAST = -1e30  # of what is no negative: where nothing is one, a sum of -inf would have no gradient


@dataclasses.dataclass(frozen=True)
class InfoNce:
    """Softmax over the targets of the whole batch, corrected by how often each is a target (logQ, Yi et al. 2019).

    The batch is that of all devices: negatives cross them, and a sharded step's loss is a single device's. Gradient
    accumulation would take negatives away: it is refused where the system is configured.

    The network's method `towers(batch)` gives user vectors and item vectors, float32 `[B, T, D]` each, and the inverse
    temperature. The batch has "decoder_target_tokens", "decoder_loss_weights" and "target_log_q" (log of the share of
    training events that the target item has), each `[B, T]`.

    Attributes:
      correct_for_popularity: subtract log q from the scores; without it popular items are punished.
      mask_own: what the same history took at other places is no negative either (segments of a row,
        "decoder_segment_ids"): of two items that one user took, neither is to be the less likely for the other.
    """

    correct_for_popularity: bool = True
    mask_own: bool = False

    def on(self, network: Any, mesh: Mesh) -> InfoNceLoss:
        """The loss of a network with two towers."""
        return InfoNceLoss(with_attention_on(network, mesh), self)


@dataclasses.dataclass(frozen=True)
class InfoNceLoss:
    """`InfoNce` of one network."""

    network: Any
    objective: InfoNce

    def __call__(
        self, params: Mapping, batch: Mapping[str, jax.Array], rng: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, dict]:
        """Sums of loss and weight over packed rows; `rng` None: no dropout."""
        users, items, scale = self.network.apply(
            {"params": params},
            batch,
            deterministic=rng is None,
            rngs=None if rng is None else {"dropout": rng},
            method="towers",
        )
        width = users.shape[-1]
        weights = batch["decoder_loss_weights"].reshape(-1)
        targets, log_q = batch["decoder_target_tokens"].reshape(-1), batch["target_log_q"].reshape(-1)
        users, items = users.reshape(-1, width), items.reshape(-1, width)
        # As a sum of its own: the gradient of the diagonal of all scores would be a scatter.
        own, scores = scale * jnp.sum(users * items, axis=-1), scale * users @ items.T
        if self.objective.correct_for_popularity:
            own, scores = own - log_q, scores - log_q
        # Another position's target that is the same item is no negative; nor is padding.
        same = targets[:, None] == targets[None, :]
        if self.objective.mask_own:
            segments = batch["decoder_segment_ids"]
            history = segments + jnp.arange(len(segments))[:, None] * (segments.shape[1] + 1)
            same |= history.reshape(-1)[:, None] == history.reshape(-1)[None, :]
        scores = jnp.where(same | (weights == 0)[None, :], LEAST, scores)
        losses = jnp.logaddexp(jax.nn.logsumexp(scores, axis=-1), own) - own
        loss, weight = jnp.sum(losses * weights), jnp.sum(weights)
        right = jnp.sum((own > jnp.max(scores, axis=-1)) * weights)
        trained = jnp.count_nonzero(weights).astype(jnp.float32), jnp.float32(weights.size)
        return (
            loss,
            weight,
            {"info_nce": (loss, weight), "in_batch_accuracy": (right, weight), "trained_share": trained},
        )


def unit(x: jax.Array) -> jax.Array:
    """float32 `[..., D]` of length one: what is compared."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + _EPSILON)
