"""Losses of the text model: classes at [EOS] with all exits, and the text of the candidate side. Retrieval's is
`objectives.InfoNce`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plum_jax.systems.m6rec.network import M6Network, applied
from plum_jax.systems.m6rec.rows import CANDIDATE
from plum_jax.systems.m6rec.trunk import Batch

Sums = tuple[jax.Array, jax.Array, dict]


def exit_weights(exits: int) -> np.ndarray:
    """float32 [K], 2k / (K (K + 1)) of exit k = 1..K: they sum up to 1, and the last has the most.

    The notes on the paper print 2k / (k (k + 1)), which would be 2 / (k + 1) and give the first exit the most; we read
    the k of the denominator as the number of layers.
    """
    return (2 * np.arange(1, exits + 1) / (exits * (exits + 1))).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class ClassLoss:
    """Cross-entropy of classes, an event at a time; of several exits the weighted sum (`exit_weights`).

    Attributes:
      network: called with a batch that has "label" float32 [B], 0 or 1, beside the columns of its rows.
    """

    network: M6Network

    def __call__(self, params: Mapping, batch: Batch, rng: jax.Array | None) -> Sums:
        """Sums of loss and weight; `rng` None: no dropout. Metrics: "log_loss" and "accuracy" of the last exit."""
        rngs = None if rng is None else {"dropout": rng}
        logits = applied(self.network, params, batch, deterministic=rng is None, rngs=rngs)
        labels = batch["label"].astype(jnp.int32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[:, None])
        weight = jnp.float32(len(labels))
        right = jnp.sum((jnp.argmax(logits[:, -1], axis=-1) == labels).astype(jnp.float32))
        metrics = {"log_loss": (jnp.sum(losses[:, -1]), weight), "accuracy": (right, weight)}
        return jnp.sum(losses * exit_weights(logits.shape[1])), weight, metrics


@dataclasses.dataclass(frozen=True)
class WritingLoss:
    """Next-token cross-entropy over the candidate side, its [EOS] included; the user side is read alone.

    Attributes:
      network: whose `language` writes.
    """

    network: M6Network

    def __call__(self, params: Mapping, batch: Batch, rng: jax.Array | None) -> Sums:
        """Sums of loss and weight over tokens; `rng` None: no dropout."""
        rngs = None if rng is None else {"dropout": rng}
        logits = applied(self.network, params, batch, method="language", deterministic=rng is None, rngs=rngs)
        nats, written = token_nats(logits, batch)
        loss, weight = jnp.sum(nats), jnp.sum(written)
        return loss, weight, {"cross_entropy": (loss, weight), "written_share": (weight, jnp.float32(written.size))}


def token_nats(logits: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """-log p float32 [B, T-1] of the token behind each place, 0 where none is written, and where one is (float32)."""
    tokens, side = batch["tokens"], batch["side"]
    written = ((side[:, 1:] == CANDIDATE) & (side[:, :-1] == CANDIDATE)).astype(jnp.float32)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:])
    return nats * written, written
