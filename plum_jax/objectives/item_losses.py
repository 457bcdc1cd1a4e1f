"""Losses over items for networks with states and one table of items: sampled softmax, and binary cross-entropy.

The full softmax over items is `next_token.NextToken` of a decoder whose vocabulary is the catalogue.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import PackedCausal
from plum_jax.objectives.kernels import attention_on

Sums = tuple[jax.Array, jax.Array, dict]


@dataclasses.dataclass(frozen=True)
class SampledSoftmax:
    """Softmax over the target and K items drawn uniformly for the whole batch, corrected for how they are drawn (logQ).

    A drawn item stands for N / K items, so that the normaliser is that of the full softmax in expectation (eSASRec,
    arXiv 2508.06450, draws for each position); a drawn item that is the target counts once.

    Attributes:
      num_negatives: K.
    """

    num_negatives: int = 256

    def on(self, network: Decoder, mesh: Mesh) -> OverItems:
        """The loss of a decoder over items."""
        return OverItems(network.clone(attention=attention_on(mesh)), self)

    def losses(self, states: jax.Array, table: jax.Array, targets: jax.Array, key: jax.Array) -> jax.Array:
        """float32 [B, T]."""
        num_items, drawn = len(table), jax.random.randint(key, (self.num_negatives,), 0, len(table))
        of_target = jnp.sum(states * table[targets], axis=-1)
        others = jnp.einsum("BTD,KD->BTK", states, table[drawn]) + jnp.log(num_items / self.num_negatives)
        others = jnp.where(drawn == targets[..., None], -jnp.inf, others)
        return jax.nn.logsumexp(jnp.concatenate([of_target[..., None], others], axis=-1), axis=-1) - of_target


@dataclasses.dataclass(frozen=True)
class BinaryCrossEntropy:
    """SASRec's own loss (arXiv 1808.09781, eq. 6): the target against items drawn uniformly for each position.

    The draws may be items of the history, where the paper draws others: a deviation that costs little in catalogues of
    thousands.

    Attributes:
      num_negatives: items drawn a position; the paper's 1.
    """

    num_negatives: int = 1

    def on(self, network: Decoder, mesh: Mesh) -> OverItems:
        """The loss of a decoder over items."""
        return OverItems(network.clone(attention=attention_on(mesh)), self)

    def losses(self, states: jax.Array, table: jax.Array, targets: jax.Array, key: jax.Array) -> jax.Array:
        """float32 [B, T]."""
        drawn = jax.random.randint(key, (*targets.shape, self.num_negatives), 0, len(table))
        of_target = jnp.sum(states * table[targets], axis=-1)
        others = jnp.einsum("BTD,BTKD->BTK", states, table[drawn])
        against = jnp.where(drawn == targets[..., None], 0.0, jax.nn.softplus(others))
        return jax.nn.softplus(-of_target) + jnp.sum(against, axis=-1)


@dataclasses.dataclass(frozen=True)
class OverItems:
    """`SampledSoftmax` or `BinaryCrossEntropy` of one decoder over items."""

    network: Decoder
    objective: SampledSoftmax | BinaryCrossEntropy

    def __call__(self, params: Mapping, batch: Mapping[str, jax.Array], rng: jax.Array | None) -> Sums:
        """Sums of loss and weight over packed rows; `rng` None: no dropout, and always the same draws."""
        output: Any = self.network.apply(
            {"params": params},
            batch["decoder_input_tokens"],
            batch["decoder_positions"],
            PackedCausal(batch["decoder_segment_ids"]),
            deterministic=rng is None,
            rngs=None if rng is None else {"dropout": rng},
            method="hidden",
        )
        config = self.network.config
        table = params["embedding" if config.tied_embeddings else "head"] * config.logits_scale
        key = jax.random.fold_in(jax.random.key(0) if rng is None else rng, 1)
        states = output.values.astype(jnp.float32)
        losses = self.objective.losses(states, table, batch["decoder_target_tokens"], key)
        weights = batch["decoder_loss_weights"]
        loss, weight = jnp.sum(losses * weights), jnp.sum(weights)
        return loss, weight, {"item_loss": (loss, weight)}
