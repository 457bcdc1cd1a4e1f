"""The normaliser of a softmax over items where those that were seen are worth something more, or less."""

from __future__ import annotations

import jax
import jax.numpy as jnp

LEAST = 1e-4  # of a normaliser, that is left when what was seen is taken out: scores of seen items are not exact
NONE = -1e30  # no -inf: a position may have seen nothing, and the gradient of a sum over nothing would be none


def without_seen(scores: jax.Array, counted: jax.Array) -> jax.Array:
    """Scores `[..., S]` of the events of each history, very small where they are not `counted`."""
    return jnp.where(counted, scores, NONE)


def with_seen(normaliser: jax.Array, seen: jax.Array, worth: jax.Array, *, everything: bool) -> jax.Array:
    """The normaliser with what seen items are worth.

    Args:
      normaliser: `[...]`, log of the sum over items.
      seen: `[..., S]`, scores of the items of each position's history, of `without_seen`.
      worth: `[..., S]`, what it adds to them that they were seen.
      everything: whether all items are in the normaliser already, without their worth; else seen ones are added.
    """
    if not everything:
        return jnp.logaddexp(normaliser, jax.nn.logsumexp(seen + worth, axis=-1))
    share = jnp.sum(jnp.exp(jnp.minimum(seen - normaliser[..., None], 0.0)) * jnp.expm1(worth), axis=-1)
    return normaliser + jnp.log1p(jnp.maximum(share, LEAST - 1))
