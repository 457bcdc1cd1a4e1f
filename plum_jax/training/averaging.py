"""An exponential moving average of the parameters, kept in the optimizer's state: what is evaluated and returned."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class AverageState(NamedTuple):
    """Steps so far, and the average of the parameters behind them."""

    steps: jax.Array
    average: Any


def averaged(optimizer: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """`optimizer`, which also keeps average <- d average + (1 - d) parameters; `decay` 0 keeps none.

    d is min(decay, (1 + t) / (10 + t)) at step t, so that the random start is forgotten at once (TensorFlow's
    ExponentialMovingAverage). The parameters that are trained are those without it.
    """
    if not decay:
        return optimizer

    def init(params: Any) -> AverageState:
        return AverageState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: AverageState, params: Any = None) -> tuple[Any, AverageState]:
        d = jnp.minimum(decay, (1 + state.steps) / (10 + state.steps))
        average = optax.incremental_update(optax.apply_updates(params, updates), state.average, 1 - d)
        return updates, AverageState(state.steps + 1, average)

    return optax.chain(optimizer, optax.GradientTransformation(init, update))


def evaluated_params(params: Any, optimizer_state: Any) -> Any:
    """The average where one is kept, else `params`."""
    slots = jax.tree.leaves(optimizer_state, is_leaf=lambda slot: isinstance(slot, AverageState))
    return next((slot.average for slot in slots if isinstance(slot, AverageState)), params)
