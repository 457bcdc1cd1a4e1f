"""One training step, compiled once: gradients of an objective, summed, divided once, applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from plum_jax.training.mesh import LOGICAL_AXIS_RULES, batch_sharding, parameter_shardings, replicated

Objective = Callable[[Any, Mapping[str, jax.Array], jax.Array | None], tuple[jax.Array, jax.Array, dict]]


@flax.struct.dataclass
class TrainState:
    """What a step changes. `step` counts finished optimizer steps."""

    step: jax.Array
    params: Any
    optimizer_state: Any


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    microbatches: int,
    root_key: jax.Array,
    mesh: Mesh,
    state: TrainState,
) -> Callable[[TrainState, Mapping[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """The compiled step `(state, batch) -> (state, sums)`; `state` gives the shardings that go in and come out."""
    dropout_key = jax.random.fold_in(root_key, 1)

    def loss(params: Any, batch: Mapping[str, jax.Array], rng: jax.Array) -> tuple[jax.Array, tuple]:
        with nn.logical_axis_rules(LOGICAL_AXIS_RULES):
            loss_sum, weight_sum, metrics = objective(params, batch, rng)
        return loss_sum, (weight_sum, {"loss": (loss_sum, weight_sum), **metrics})

    def step(state: TrainState, batch: Mapping[str, jax.Array]) -> tuple[TrainState, dict]:
        rng = jax.random.fold_in(dropout_key, state.step)
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        if microbatches == 1:
            (_, (weight, metrics)), grads = value_and_grad(state.params, batch, rng)
        else:
            grads, weight, metrics = _accumulate(value_and_grad, state.params, batch, rng, microbatches)
        # One division by the weight of the whole batch: ragged microbatches count by their tokens.
        grads = jax.tree.map(lambda g: g / jnp.maximum(weight, 1e-8).astype(g.dtype), grads)
        updates, optimizer_state = optimizer.update(grads, state.optimizer_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics["gradient_norm"] = (optax.global_norm(grads), jnp.float32(1.0))
        return TrainState(step=state.step + 1, params=params, optimizer_state=optimizer_state), metrics

    shardings = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(
        step, in_shardings=(shardings, batch_sharding(mesh)), out_shardings=(shardings, None), donate_argnums=0
    )


def _accumulate(value_and_grad: Callable, params: Any, batch: Any, rng: jax.Array, pieces: int) -> tuple:
    """Sums of gradients, weights and metrics over `pieces` equal cuts of the batch."""
    cut = jax.tree.map(lambda x: x.reshape(pieces, x.shape[0] // pieces, *x.shape[1:]), batch)

    def one(carry: tuple, xs: tuple) -> tuple[tuple, None]:
        piece, index = xs
        (_, (weight, metrics)), grads = value_and_grad(params, piece, jax.random.fold_in(rng, index))
        return jax.tree.map(jnp.add, carry, (grads, weight, metrics)), None

    first = jax.tree.map(lambda x: x[0], cut)
    (_, (weight, metrics)), grads = jax.eval_shape(value_and_grad, params, first, rng)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, weight, metrics))
    total, _ = jax.lax.scan(one, zeros, (cut, jnp.arange(pieces)))
    return total


def initial_state(
    init_params: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, root_key: jax.Array, mesh: Mesh
) -> TrainState:
    """Step 0 on the mesh: parameters and the optimizer's slots for them are split by the parameters' logical axes."""
    boxed = init_params(jax.random.fold_in(root_key, 0))
    shardings = parameter_shardings(boxed, mesh)
    params = jax.device_put(nn.unbox(boxed), shardings)
    abstract = jax.eval_shape(optimizer.init, params)
    state_shardings = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        abstract,
        shardings,
        transform_non_params=lambda _: replicated(mesh),
    )
    # A factored or scalar slot does not have its parameter's shape; it is replicated.
    state_shardings = jax.tree.map(
        lambda leaf, s: s if len(leaf.shape) >= len(s.spec) else replicated(mesh), abstract, state_shardings
    )
    optimizer_state = jax.jit(optimizer.init, out_shardings=state_shardings)(params)
    return TrainState(
        step=jax.device_put(jnp.int32(0), replicated(mesh)), params=params, optimizer_state=optimizer_state
    )
