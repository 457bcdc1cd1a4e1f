"""Routing: which experts a token is sent to, with what weight, and how even that is. Knows nothing of dispatch."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from plum_jax.model.config import MixtureOfExperts


@flax.struct.dataclass
class Routing:
    """The experts of every token.

    Attributes:
      experts: `[B, T, k]` int32, best first.
      weights: `[B, T, k]` float32.
    """

    experts: jax.Array
    weights: jax.Array


@flax.struct.dataclass
class RouterStatistics:
    """How a layer's tokens were spread; every leaf gets a leading axis of layers where layers are stacked.

    Attributes:
      balance_loss: E * sum_e share_e * mean probability_e, 1 when even (Switch, arXiv 2101.03961 eq. 4, the shares
        being those of all k choices).
      z_loss: mean of (log sum exp of router logits)^2 (ST-MoE, arXiv 2202.08906 eq. 5).
      load: float32 `[E]`, share of all assignments.
      dropped: share of the assignments that found no place.
    """

    balance_loss: jax.Array
    z_loss: jax.Array
    load: jax.Array
    dropped: jax.Array


def route(logits: jax.Array, config: MixtureOfExperts, real: jax.Array | None) -> tuple[Routing, RouterStatistics]:
    """The `experts_per_token` most probable experts of each token.

    Args:
      logits: float32 `[B, T, E]`.
      config: k, and whether weights are normalised.
      real: bool `[B, T]`, tokens that count in the statistics; None: all. Padding gets weight 0.

    Returns:
      the routing, and its statistics with `dropped` 0.
    """
    probabilities = jax.nn.softmax(logits, axis=-1)
    weights, experts = lax.top_k(probabilities, config.experts_per_token)
    if config.normalise_weights:
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    counted = jnp.ones(logits.shape[:2], jnp.float32) if real is None else real.astype(jnp.float32)
    total = jnp.maximum(jnp.sum(counted), 1.0)
    chosen = jax.nn.one_hot(experts, config.num_experts, dtype=jnp.float32)
    load = jnp.einsum("BTkE,BT->E", chosen, counted) / (total * config.experts_per_token)
    mean_probability = jnp.einsum("BTE,BT->E", probabilities, counted) / total
    log_normaliser = jax.nn.logsumexp(logits, axis=-1)
    statistics = RouterStatistics(
        balance_loss=config.num_experts * jnp.sum(load * mean_probability),
        z_loss=jnp.sum(jnp.square(log_normaliser) * counted) / total,
        load=load,
        dropped=jnp.float32(0.0),
    )
    if real is not None:
        weights = weights * counted[:, :, None]
    return Routing(experts=experts.astype(jnp.int32), weights=weights), statistics
