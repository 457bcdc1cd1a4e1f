"""Search-based Interest Model (Pi et al., arXiv 2006.05639), hard search: behaviours of the candidate's category."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.ranking.event_columns import Sizes
from plum_jax.ranking.networks.din import ActivationUnit
from plum_jax.ranking.networks.interest import Extras, Interest
from plum_jax.ranking.networks.target_attention import TargetAttention


@dataclasses.dataclass(frozen=True)
class Sim:
    """The latest behaviours of the candidate's category, out of a long history, and all of the latest ones beside them.

    The search unit is the paper's hard search (section 3.2), which serves its company; the exact unit is multi-head
    attention over what is found, with the time to the candidate (here one of the fields of a behaviour's vector); the
    short part is DIN's.

    Attributes:
      found: behaviours that the search keeps, the latest ones.
      short: latest behaviours of any category.
      heads, head_dim: of the attention.
      hidden: of DIN's activation unit.
    """

    found: int = 50
    short: int = 20
    heads: int = 2
    head_dim: int = 16
    hidden: int = 36
    needs_drawn = False
    needs_categories = True

    def module(self, sizes: Sizes, name: str) -> SimInterest:
        return SimInterest(self, name=name)


class SimInterest(nn.Module):
    """`Sim`; its vector is what was found, and the latest behaviours behind it."""

    config: Sim

    @nn.compact
    def __call__(self, candidate: jax.Array, behaviours: jax.Array, mask: jax.Array, extras: Extras) -> Interest:
        c = self.config
        found = latest(mask & extras.same_category, c.found)
        long = TargetAttention(c.heads, c.head_dim, name="exact")(candidate, behaviours, found)
        short, real = last_ones(behaviours, mask, c.short)
        weights = jnp.where(real, ActivationUnit(c.hidden, name="unit")(candidate, short), 0.0)
        return Interest(jnp.concatenate([long, jnp.einsum("BT,BTD->BD", weights, short)], axis=-1))


def latest(mask: jax.Array, count: int) -> jax.Array:
    """The last `count` places of each row of a mask [B, T] that are true."""
    behind = jnp.cumsum(mask[:, ::-1], axis=1)[:, ::-1]
    return mask & (behind <= count)


def last_ones(behaviours: jax.Array, mask: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The last `count` real behaviours of each row, [B, count, D] and which of them are real."""
    count = min(count, mask.shape[1])
    lengths = jnp.sum(mask, axis=1, keepdims=True)
    places = jnp.maximum(lengths - count, 0) + jnp.arange(count)
    return jnp.take_along_axis(behaviours, places[..., None], axis=1), places < lengths
