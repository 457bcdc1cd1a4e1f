"""One training step, compiled once: gradients of an objective, summed, divided once, applied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from plum_jax.training.averaging import evaluated_params
from plum_jax.training.mesh import batch_sharding, is_tpu, logical_axes, parameter_shardings, replicated
from plum_jax.training.slots import map_slots

# Without this, XLA may turn the gather before a product into a ring of as many small products and permutes as there are
# chips: on 256 chips that hides nothing, and takes twice the time to compile. Gathers overlap with the layer before.
TPU_COMPILER_OPTIONS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}

Objective = Callable[[Any, Mapping[str, jax.Array], jax.Array | None], tuple[jax.Array, jax.Array, dict]]


@dataclasses.dataclass(frozen=True)
class FromHost:
    """Initial parameters that are read, or fitted to data, on the host: a warm start, codebooks by k-means.

    Attributes:
      make: key -> parameters, called outside of jit; its arrays are cut up for the devices one by one.
    """

    make: Callable[[jax.Array], Any]


# Without `FromHost`: a function of JAX alone, compiled so that no device ever holds more than its shard.
Initialiser = Callable[[jax.Array], Any] | FromHost


@flax.struct.dataclass
class TrainState:
    """What a step changes. `step` counts finished optimizer steps."""

    step: jax.Array
    params: Any
    optimizer_state: Any

    @property
    def evaluated(self) -> Any:
        """The parameters that evaluations and the run's end are given: their average where one is kept."""
        return evaluated_params(self.params, self.optimizer_state)


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    microbatches: int,
    root_key: jax.Array,
    mesh: Mesh,
    state: TrainState,
) -> Callable[[TrainState, Mapping[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """The compiled step `(state, batch) -> (state, sums)`; `state` gives the shardings that go in and come out.

    `state` may be of `jax.ShapeDtypeStruct`, to compile for devices that are not here (`abstract_state`).
    """
    shardings = jax.tree.map(lambda x: x.sharding, state)
    dropout_key = jax.random.fold_in(root_key, 1)

    def loss(params: Any, batch: Mapping[str, jax.Array], rng: jax.Array) -> tuple[jax.Array, tuple]:
        with logical_axes(mesh):
            loss_sum, weight_sum, metrics = objective(params, batch, rng)
        return loss_sum, (weight_sum, {"loss": (loss_sum, weight_sum), **metrics})

    def step(state: TrainState, batch: Mapping[str, jax.Array]) -> tuple[TrainState, dict]:
        rng = jax.random.fold_in(dropout_key, state.step)
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        if microbatches == 1:
            (_, (weight, metrics)), grads = value_and_grad(state.params, batch, rng)
        else:
            cut = _cut(batch, microbatches, mesh)
            grads, weight, metrics = _accumulate(value_and_grad, state.params, cut, rng, shardings.params)
        # One division by the weight of the whole batch: ragged microbatches count by their tokens.
        grads = jax.tree.map(lambda g: g / jnp.maximum(weight, 1e-8).astype(g.dtype), grads)
        updates, optimizer_state = optimizer.update(grads, state.optimizer_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics["gradient_norm"] = (optax.global_norm(grads), jnp.float32(1.0))
        return TrainState(step=state.step + 1, params=params, optimizer_state=optimizer_state), metrics

    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, None),
        donate_argnums=0,
        compiler_options=TPU_COMPILER_OPTIONS if is_tpu(mesh) else None,
    )


def _cut(batch: Any, pieces: int, mesh: Mesh) -> Any:
    """`[B, ...]` to `[pieces, B / pieces, ...]`; every device cuts its own rows, so that no row moves."""
    rows = NamedSharding(mesh, PartitionSpec(None, *batch_sharding(mesh).spec))

    def cut(x: jax.Array) -> jax.Array:
        if x.shape[0] % pieces:
            raise ValueError(f"expected a batch of a multiple of {pieces} microbatches, got {x.shape[0]} rows")
        x = x.reshape(x.shape[0] // pieces, pieces, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(x, rows)

    return jax.tree.map(cut, batch)


def _accumulate(value_and_grad: Callable, params: Any, cut: Any, rng: jax.Array, shardings: Any) -> tuple:
    """Sums of gradients, weights and metrics over the pieces of a batch; gradients are kept split as parameters are."""

    def one(carry: tuple, xs: tuple) -> tuple[tuple, None]:
        piece, index = xs
        (_, (weight, metrics)), grads = value_and_grad(params, piece, jax.random.fold_in(rng, index))
        grads, *sums = jax.tree.map(jnp.add, carry, (grads, weight, metrics))
        return (jax.lax.with_sharding_constraint(grads, shardings), *sums), None

    first = jax.tree.map(lambda x: x[0], cut)
    (_, (weight, metrics)), grads = jax.eval_shape(value_and_grad, params, first, rng)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, weight, metrics))
    pieces = len(jax.tree.leaves(cut)[0])
    total, _ = jax.lax.scan(one, zeros, (cut, jnp.arange(pieces)))
    return total


def abstract_state(
    init_params: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, root_key: jax.Array, mesh: Mesh
) -> TrainState:
    """Shapes, dtypes and shardings of `initial_state`, without an array: what a step is compiled from."""
    boxed = jax.eval_shape(init_params, jax.random.fold_in(root_key, 0))
    return _placed(boxed, optimizer, mesh)


def initial_state(
    init_params: Initialiser, optimizer: optax.GradientTransformation, root_key: jax.Array, mesh: Mesh
) -> TrainState:
    """Step 0 on the mesh: parameters and the optimizer's slots for them are split by the parameters' logical axes."""
    key = jax.random.fold_in(root_key, 0)
    if isinstance(init_params, FromHost):
        boxed = init_params.make(key)
        shardings = jax.tree.map(lambda x: x.sharding, _placed(boxed, optimizer, mesh))
        params = jax.tree.map(_cut_up, nn.unbox(boxed), shardings.params)
    else:
        make = init_params
        shardings = jax.tree.map(lambda x: x.sharding, abstract_state(make, optimizer, root_key, mesh))
        params = jax.jit(lambda key: nn.unbox(make(key)), out_shardings=shardings.params)(key)
    optimizer_state = jax.jit(optimizer.init, out_shardings=shardings.optimizer_state)(params)
    return TrainState(jax.device_put(jnp.int32(0), shardings.step), params, optimizer_state)


def _cut_up(value: Any, sharding: NamedSharding) -> jax.Array:
    value = np.asarray(value)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def _placed(boxed: Any, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """The abstract state of parameters with logical axes."""
    shardings = parameter_shardings(boxed, mesh)
    params = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxed), shardings)

    def place(slot: Any, like: Any = None) -> Any:
        # A factored or scalar slot does not have its parameter's shape; it is small, and replicated.
        split = like is not None and slot.shape == like.shape
        return jax.ShapeDtypeStruct(slot.shape, slot.dtype, sharding=like.sharding if split else replicated(mesh))

    slots = map_slots(place, jax.eval_shape(optimizer.init, params), params)
    return TrainState(place(jax.ShapeDtypeStruct((), jnp.int32)), params, slots)
