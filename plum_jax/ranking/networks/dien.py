"""Deep Interest Evolution Network (Zhou et al., arXiv 1809.03672): interests change, and some of them towards this."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.projections import fan_in, parameter
from plum_jax.ranking.event_columns import Sizes
from plum_jax.ranking.networks.interest import Extras, Interest, SumAndWeight


@dataclasses.dataclass(frozen=True)
class Dien:
    """A GRU extracts an interest at each behaviour, a second one follows those that the candidate attends to (AUGRU).

    The auxiliary loss (eq. 6) is the log loss of the next behaviour against one item drawn for each step, by their
    products with the interest before them.
    """

    needs_drawn = True
    needs_categories = False

    def module(self, sizes: Sizes, name: str) -> DienInterest:
        return DienInterest(name=name)


class DienInterest(nn.Module):
    """`Dien`; its states are as wide as a behaviour."""

    @nn.compact
    def __call__(self, candidate: jax.Array, behaviours: jax.Array, mask: jax.Array, extras: Extras) -> Interest:
        width = behaviours.shape[-1]
        states = Gru(width, name="extraction")(behaviours, mask)
        attention = nn.Dense(width, use_bias=False, name="attention")(candidate)
        scores = jnp.einsum("BTD,BD->BT", states, attention)
        weights = jax.nn.softmax(jnp.where(mask, scores, -1e9), axis=-1) * mask
        evolved = Gru(width, name="evolution")(states, mask, weights)
        loss = None if extras.drawn is None else auxiliary_loss(states, behaviours, extras.drawn, mask)
        return Interest(evolved[:, -1], loss)


class Gru(nn.Module):
    """States [B, T, H] after each of T inputs [B, T, D]; where the mask is false a state stays what it was.

    With `weights` [B, T] the update gate is multiplied by them: AUGRU (eq. 14 to 16).
    """

    hidden: int

    @nn.compact
    def __call__(self, inputs: jax.Array, mask: jax.Array, weights: jax.Array | None = None) -> jax.Array:
        batch, length, width = inputs.shape
        shape = (width, 3 * self.hidden)
        of_input = parameter(self, "input_kernel", fan_in(1.0, 0, 1), ("width", "hidden"), shape, "float32")
        bias = parameter(self, "bias", nn.initializers.zeros_init(), ("hidden",), shape[1:], "float32")
        recurrent = nn.initializers.orthogonal()
        of_state = parameter(
            self, "state_kernel", recurrent, ("width", "hidden"), (self.hidden, 3 * self.hidden), "float32"
        )
        # One product for the inputs of all steps; the recurrence keeps the one that has to wait.
        projected = (inputs.reshape(-1, width) @ of_input + bias).reshape(batch, length, -1).swapaxes(0, 1)
        kept = mask.astype(jnp.float32) if weights is None else mask * weights

        def step(state: jax.Array, xs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            of_x, share = xs
            of_h = state @ of_state
            n = self.hidden
            update, reset = jnp.split(jax.nn.sigmoid(of_x[:, : 2 * n] + of_h[:, : 2 * n]), 2, axis=-1)
            candidate = jnp.tanh(of_x[:, 2 * n :] + reset * of_h[:, 2 * n :])
            state = state + share[:, None] * update * (candidate - state)
            return state, state

        start = jnp.zeros((batch, self.hidden), projected.dtype)
        _, states = jax.lax.scan(step, start, (projected, kept.swapaxes(0, 1)))
        return states.swapaxes(0, 1)


def auxiliary_loss(states: jax.Array, behaviours: jax.Array, drawn: jax.Array, mask: jax.Array) -> SumAndWeight:
    """Sum and weight of the log loss of each behaviour but the first against a drawn item, by the state before it."""
    real = mask[:, 1:].astype(jnp.float32)
    taken = jnp.einsum("BTD,BTD->BT", states[:, :-1], behaviours[:, 1:])
    other = jnp.einsum("BTD,BTD->BT", states[:, :-1], drawn[:, 1:])
    return jnp.sum(real * (jax.nn.softplus(-taken) + jax.nn.softplus(other))), jnp.sum(real)
