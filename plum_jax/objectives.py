"""Objectives: `(params, batch, rng) -> (loss_sum, weight_sum, metrics)`. Sums only; the trainer divides once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import packed_causal_mask

Batch = Mapping[str, jax.Array]
Metrics = dict[str, tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class NextToken:
    """Weighted next-token cross-entropy: CPT (weights 1) and reward-weighted fine-tuning (PLUM §1.3, L_SFT).

        loss = - sum_t w_t log P(target_t | inputs_<=t)

    Attributes:
      decoder: the model.
      label_smoothing: share of the target's probability spread evenly over the vocabulary. Not in PLUM.
    """

    decoder: Decoder
    label_smoothing: float = 0.0

    def __call__(self, params: Mapping, batch: Batch, rng: jax.Array | None) -> tuple[jax.Array, jax.Array, Metrics]:
        """Sums of loss and weight over a batch of T5X-named features, each `[B, T]`; `rng` None means no dropout."""
        logits, _ = self.decoder.apply(
            {"params": params},
            batch["decoder_input_tokens"],
            batch["decoder_positions"],
            packed_causal_mask(batch["decoder_segment_ids"]),
            deterministic=rng is None,
            rngs=None if rng is None else {"dropout": rng},
        )
        targets = batch["decoder_target_tokens"]
        weights = batch["decoder_loss_weights"].astype(jnp.float32)
        log_normaliser = jax.nn.logsumexp(logits, axis=-1)
        target_logits = jnp.take_along_axis(logits, targets[:, :, None], axis=-1)[:, :, 0]
        nll = log_normaliser - target_logits
        loss = nll
        if self.label_smoothing:
            uniform = log_normaliser - jnp.mean(logits, axis=-1)
            loss = (1.0 - self.label_smoothing) * nll + self.label_smoothing * uniform
        weight_sum = jnp.sum(weights)
        correct = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
        metrics = {
            "cross_entropy": (jnp.sum(nll * weights), weight_sum),
            "accuracy": (jnp.sum(correct * weights), weight_sum),
        }
        return jnp.sum(loss * weights), weight_sum, metrics
