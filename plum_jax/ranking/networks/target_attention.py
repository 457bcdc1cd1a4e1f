"""Attention of one candidate over long histories, without keys or values of the behaviours."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.projections import fan_in, parameter

NEVER = -1e9


class TargetAttention(nn.Module):
    """Multi-head attention of candidates [B, D] over behaviours [B, T, D], `[B, H * head_dim]`; nothing seen is zeros.

    A candidate is one query, so (W_k b) q is b (W_k^T q) and the sum of a W_v b is W_v of the sum of a b: no product
    has both T and a projection, which is what makes hundreds of behaviours cheap.

    Attributes:
      heads, head_dim: H and its width.
      top_k: only so many behaviours, those of the highest scores (mean over heads), are attended to; None: all.
    """

    heads: int
    head_dim: int
    top_k: int | None = None

    @nn.compact
    def __call__(
        self, candidate: jax.Array, behaviours: jax.Array, mask: jax.Array, bias: jax.Array | None = None
    ) -> jax.Array:
        """`mask` bool [B, T]; `bias` [B, T, H] is added to the scores."""
        scores = self._scores(candidate, behaviours)
        if bias is not None:
            scores = scores + bias.swapaxes(1, 2)
        mask = mask if self.top_k is None else highest(jnp.mean(scores, axis=1), mask, self.top_k)
        weights = jax.nn.softmax(jnp.where(mask[:, None], scores, NEVER), axis=-1) * mask[:, None]
        attended = jnp.einsum("BHT,BTD->BHD", weights, behaviours)
        return jnp.einsum("BHD,HDE->BHE", attended, self._parameter("value", candidate)).reshape(len(candidate), -1)

    def _scores(self, candidate: jax.Array, behaviours: jax.Array) -> jax.Array:
        query = jnp.einsum("BD,HDE->BHE", candidate, self._parameter("query", candidate))
        query = jnp.einsum("BHE,HDE->BHD", query, self._parameter("key", candidate))
        return jnp.einsum("BHD,BTD->BHT", query, behaviours) * self.head_dim**-0.5

    def _parameter(self, name: str, candidate: jax.Array) -> jax.Array:
        shape = (self.heads, candidate.shape[-1], self.head_dim)
        return parameter(self, name, fan_in(1.0, 1, 2, 0), ("heads", "width", "hidden"), shape, "float32")


def highest(scores: jax.Array, mask: jax.Array, k: int) -> jax.Array:
    """bool [B, T]: the k highest scores of each row among those of the mask; what is equal to the last one, too."""
    if k >= scores.shape[1]:
        return mask
    scores = jax.lax.stop_gradient(jnp.where(mask, scores, NEVER))
    least = jax.lax.top_k(scores, k)[0][:, -1:]
    return mask & (scores >= least)
