"""Knowledge of a user model as inputs of a ranker: its vectors, and how well they match the candidate."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.projections import parameter


class KnowledgeInputs(nn.Module):
    """[B, ...] of "knowledge_queries" [B, N, D] and "knowledge_item" [B, D] (LUM, arXiv 2502.08309, step 3).

    Direct: all queries together and the item, each projected. Matching: their N products, with a learnt scale and shift
    for each condition. Where queries and items come from is not trained.

    Attributes:
      use: "direct", "matching" or "both".
      width: of each projection.
    """

    use: str
    width: int

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        queries, item = batch["knowledge_queries"], batch["knowledge_item"]
        conditions, parts = queries.shape[1], []
        if self.use != "matching":
            parts.append(nn.Dense(self.width, name="queries")(queries.reshape(len(queries), -1)))
            parts.append(nn.Dense(self.width, name="item")(item))
        if self.use != "direct":
            ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
            scale = parameter(self, "match_scale", ones, ("norm",), (conditions,), "float32")
            shift = parameter(self, "match_bias", zeros, ("norm",), (conditions,), "float32")
            parts.append(jnp.einsum("BND,BD->BN", queries, item) * scale + shift)
        return jnp.concatenate(parts, axis=-1)
