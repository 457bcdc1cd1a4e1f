"""The next token of packed rows, by all that came before it in its segment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import PackedCausal
from plum_jax.model.moe.routing import RouterStatistics
from plum_jax.objectives.cross_entropy import ChunkedCrossEntropy, LossSums
from plum_jax.objectives.kernels import attention_on, loss_on

Batch = Mapping[str, jax.Array]
Metrics = dict[str, tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class NextToken:
    """Weighted next-token cross-entropy: CPT (weights 1) and reward-weighted fine-tuning (PLUM §1.3, L_SFT).

        loss = - sum_t w_t log P(target_t | inputs_<=t) + sum_t w_t * (balance_weight * balance + z_weight * z)

    The routers' losses (experts only) are means over the layers and the batch that the objective is given.

    Attributes:
      label_smoothing: share of the target's probability spread evenly over the vocabulary. Not in PLUM.
      balance_weight: of the load-balancing loss (Switch, arXiv 2101.03961, uses 0.01).
      z_weight: of the router's z-loss (ST-MoE, arXiv 2202.08906, uses 0.001).
    """

    label_smoothing: float = 0.0
    balance_weight: float = 0.01
    z_weight: float = 0.001

    def on(self, network: Decoder, mesh: Mesh) -> NextTokenLoss:
        """The loss of a decoder, with the kernels of the mesh's devices."""
        return NextTokenLoss(network.clone(attention=attention_on(mesh)), self, loss_on(mesh))


@dataclasses.dataclass(frozen=True)
class NextTokenLoss:
    """`NextToken` of one decoder.

    Attributes:
      decoder: the model.
      weights: smoothing, and what the routers' losses count.
      chunked: head and loss by chunks of tokens, chosen by the machine as the decoder's attention is; None: all logits
        at once.
    """

    decoder: Decoder
    weights: NextToken = NextToken()
    chunked: ChunkedCrossEntropy | None = None

    def __call__(self, params: Mapping, batch: Batch, rng: jax.Array | None) -> tuple[jax.Array, jax.Array, Metrics]:
        """Sums of loss and weight over a batch of T5X-named features, each `[B, T]`; `rng` None means no dropout."""
        output: Any = self.decoder.apply(
            {"params": params},
            batch["decoder_input_tokens"],
            batch["decoder_positions"],
            PackedCausal(batch["decoder_segment_ids"]),
            deterministic=rng is None,
            rngs=None if rng is None else {"dropout": rng},
            method="hidden" if self.chunked else "__call__",
        )
        targets, router = batch["decoder_target_tokens"], output.router
        weights = batch["decoder_loss_weights"].astype(jnp.float32)
        if self.chunked:
            config = self.decoder.config
            table = params["embedding" if config.tied_embeddings else "head"]
            sums = self.chunked(output.values, table, targets, weights, config, self.weights.label_smoothing)
        else:
            sums = _loss_sums(output.values, targets, weights, self.weights.label_smoothing)
        weight_sum = jnp.sum(weights)
        metrics = {
            "cross_entropy": (sums.nll, weight_sum),
            "accuracy": (sums.correct, weight_sum),
            # Of all positions, padding included: what share is learnt from.
            "trained_share": (jnp.count_nonzero(weights).astype(jnp.float32), jnp.float32(weights.size)),
        }
        loss_sum = sums.loss
        if router is not None:
            balance, z_loss = jnp.mean(router.balance_loss), jnp.mean(router.z_loss)
            loss_sum += weight_sum * (self.weights.balance_weight * balance + self.weights.z_weight * z_loss)
            metrics |= _router_metrics(router, weight_sum)
        return loss_sum, weight_sum, metrics


def _loss_sums(logits: jax.Array, targets: jax.Array, weights: jax.Array, smoothing: float) -> LossSums:
    """The sums from all logits, `[B, T, V]`."""
    log_normaliser = jax.nn.logsumexp(logits, axis=-1)
    # As a masked sum: its gradient is elementwise, that of a gather is a scatter.
    is_target = targets[:, :, None] == jnp.arange(logits.shape[-1])
    target_logits = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
    nll = log_normaliser - target_logits
    loss = nll
    if smoothing:
        uniform = log_normaliser - jnp.mean(logits, axis=-1)
        loss = (1.0 - smoothing) * nll + smoothing * uniform
    # Not by argmax, which is slow on CPU: the target is also right where it ties with another.
    correct = (target_logits == jnp.max(logits, axis=-1)).astype(jnp.float32)
    return LossSums(*(jnp.sum(value * weights) for value in (loss, nll, correct)))


def _router_metrics(router: RouterStatistics, weight_sum: jax.Array) -> Metrics:
    """Means over layers; the load of the fullest expert as a multiple of an even one."""
    fullest = jnp.max(router.load, axis=-1) * router.load.shape[-1]
    values = {
        "router_balance_loss": router.balance_loss,
        "router_z_loss": router.z_loss,
        "router_dropped": router.dropped,
        "router_fullest_expert": fullest,
    }
    return {name: (jnp.mean(value) * weight_sum, weight_sum) for name, value in values.items()}
