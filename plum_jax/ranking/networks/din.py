"""Deep Interest Network (Zhou et al., arXiv 1706.06978): each behaviour is weighed by what the candidate is."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.projections import fan_in, parameter
from plum_jax.ranking.event_columns import Sizes
from plum_jax.ranking.networks.interest import Extras, Interest
from plum_jax.ranking.networks.perceptron import PRelu


@dataclasses.dataclass(frozen=True)
class Din:
    """Local activation: a small network weighs each behaviour, and the weighed ones are summed.

    Deviation from the paper: PReLU where it has Dice (`perceptron.PRelu`).

    Attributes:
      hidden: width of the layer of the activation unit; the paper's 36.
    """

    hidden: int = 36
    needs_drawn = False
    needs_categories = False

    def module(self, sizes: Sizes, name: str) -> DinInterest:
        return DinInterest(self.hidden, name=name)


class DinInterest(nn.Module):
    """`Din`; its vector is as wide as a behaviour."""

    hidden: int

    @nn.compact
    def __call__(self, candidate: jax.Array, behaviours: jax.Array, mask: jax.Array, extras: Extras) -> Interest:
        weights = jnp.where(mask, ActivationUnit(self.hidden, name="unit")(candidate, behaviours), 0.0)
        # No softmax: how much of a history is of the candidate's kind is part of what is known (section 4.3).
        return Interest(jnp.einsum("BT,BTD->BD", weights, behaviours))


class ActivationUnit(nn.Module):
    """Weights float32 [B, T] of behaviours b [B, T, D] for candidates c [B, D], by a layer over [b, c, b - c, b * c].

    The layer's product is taken apart, (K1 + K3) b + (K2 - K3) c + K4 (b * c): the same numbers for half of the work.
    """

    hidden: int

    @nn.compact
    def __call__(self, candidate: jax.Array, behaviours: jax.Array) -> jax.Array:
        (batch, length, width), hidden = behaviours.shape, self.hidden
        of_behaviour, of_candidate, of_difference, of_product = parameter(
            self, "kernel", fan_in(1.0, (0, 1), 2), ("stack", "width", "hidden"), (4, width, hidden), "float32"
        )
        bias = parameter(self, "bias", nn.initializers.zeros_init(), ("hidden",), (hidden,), "float32")
        rows = behaviours.reshape(-1, width)
        products = (behaviours * candidate[:, None]).reshape(-1, width)
        x = rows @ (of_behaviour + of_difference) + products @ of_product
        x = x.reshape(batch, length, hidden) + (candidate @ (of_candidate - of_difference) + bias)[:, None]
        x = PRelu(name="activation")(x).reshape(-1, hidden)
        return nn.Dense(1, name="out")(x).reshape(batch, length)
