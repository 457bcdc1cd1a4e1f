"""The layer: routes, dispatches, computes the experts, and brings their outputs back."""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from plum_jax.model.config import DecoderConfig, MixtureOfExperts
from plum_jax.model.moe.grouped_matmul import BLOCK, grouped_matmul
from plum_jax.model.moe.routing import RouterStatistics, Routing, route
from plum_jax.model.moe.slots import Slots, capacity, fixed_slots, from_slots, ragged_slots, to_slots, weights_of_slots
from plum_jax.model.projections import GatedMLP, fan_in, parameter


class Experts(nn.Module):
    """Mixture of gated MLPs. `[B, T, D] -> [B, T, D]` and the router's statistics.

    A row of the batch is a group: its tokens share the experts' capacity (GShard, section 2.2), and dispatch stays on
    the device that has the row, until the experts themselves are split over devices.

    Attributes:
      config: of the decoder; its `moe` is not None.
    """

    config: DecoderConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, real: jax.Array | None = None, *, dropless: bool = False
    ) -> tuple[jax.Array, RouterStatistics]:
        """Every token through its experts.

        Args:
          x: `[B, T, D]`.
          real: bool `[B, T]`, tokens that are no padding; None: all.
          dropless: compute everything whatever the configuration says: for inference.
        """
        c, moe = self.config, _experts_of(self.config)
        e, f = moe.num_experts, moe.mlp_dim
        router = parameter(self, "router", fan_in(1.0, 0, 1), ("embed", "router"), (c.d_model, e), c.param_dtype)
        gate_up = parameter(
            self, "gate_up", fan_in(1.0, 1, (2, 3), batch_axis=0), ("expert", "embed", "gate_up", "mlp"),
            (e, c.d_model, 2, f), c.param_dtype,
        )  # fmt: skip
        down = parameter(
            self, "down", fan_in(0.5 / c.num_layers, 1, 2, batch_axis=0), ("expert", "mlp", "embed"),
            (e, f, c.d_model), c.param_dtype,
        )  # fmt: skip
        # Routing decides in float32: rounded logits would send tokens elsewhere.
        logits = jnp.einsum("BTD,DE->BTE", x.astype(jnp.float32), router.astype(jnp.float32))
        routing, statistics = route(logits, moe, real)
        weights = (gate_up.astype(c.dtype), down.astype(c.dtype))
        if dropless or moe.dispatch == "dropless":
            y = _dropless(x, routing, *weights, c)
        else:
            counted = jnp.ones(x.shape[:2], bool) if real is None else real
            y, dropped = _with_capacity(x, routing, *weights, c, counted)
            statistics = dataclasses.replace(statistics, dropped=dropped)
        if moe.shared_mlp_dim:
            y = y + GatedMLP(c, moe.shared_mlp_dim, name="shared")(x)
        return y, statistics


def _experts_of(config: DecoderConfig) -> MixtureOfExperts:
    assert config.moe is not None, "a layer of experts needs config.moe"
    return config.moe


def _with_capacity(
    x: jax.Array, routing: Routing, gate_up: jax.Array, down: jax.Array, config: DecoderConfig, real: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Experts with C places for each row of the batch, and the share of assignments that found none."""
    moe = _experts_of(config)
    places = capacity(moe, x.shape[1])
    slots = jax.vmap(lambda experts, real: fixed_slots(experts, moe.num_experts, places, real))(routing.experts, real)
    inside = jax.vmap(to_slots)(x, slots).reshape(x.shape[0], moe.num_experts, places, -1)
    axes = ("expert_batch", "expert", "capacity", "embed_activation")
    inside = nn.with_logical_constraint(inside, axes)
    both = jnp.einsum("BECD,EDUF->BECUF", inside, gate_up)
    # Weighted before the last product, not behind it: it is linear, and so its output is not needed for any gradient.
    # Where activations are computed again in the backward pass, a third of the experts' products is not.
    weights = jax.vmap(weights_of_slots)(routing.weights, slots).reshape(x.shape[0], moe.num_experts, places, 1)
    hidden = config.activation(both[:, :, :, 0]) * both[:, :, :, 1] * weights.astype(x.dtype)
    outside = nn.with_logical_constraint(jnp.einsum("BECF,EFD->BECD", hidden, down), axes)
    y = _combine(outside.reshape(x.shape[0], -1, x.shape[-1]), slots)
    assigned = jnp.sum(real) * moe.experts_per_token
    placed = jnp.sum(slots.of_assignment < moe.num_experts * places)
    return y, (assigned - placed) / jnp.maximum(assigned, 1)


def _dropless(x: jax.Array, routing: Routing, gate_up: jax.Array, down: jax.Array, config: DecoderConfig) -> jax.Array:
    """Experts that compute whatever is sent to them, on the device that has the row.

    How many rows an expert gets is not known when the program is compiled, so nothing is exchanged: each device gathers
    all experts' matrices, also where they are split over `expert` or `tensor`.
    """
    compute = functools.partial(_dropless_rows, config=config)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return compute(x, routing, gate_up, down)
    rows, whole = nn.logical_to_mesh_axes(("batch",)), PartitionSpec()
    split = jax.shard_map(compute, in_specs=(rows, rows, whole, whole), out_specs=rows, check_vma=False)
    return split(x, routing, gate_up, down)


def _dropless_rows(
    x: jax.Array, routing: Routing, gate_up: jax.Array, down: jax.Array, config: DecoderConfig
) -> jax.Array:
    moe = _experts_of(config)
    into = gate_up.reshape(moe.num_experts, config.d_model, -1)
    slots, sizes = jax.vmap(lambda experts: ragged_slots(experts, moe.num_experts, BLOCK))(routing.experts)
    both = grouped_matmul(jax.vmap(to_slots)(x, slots), into, sizes)
    gate, up = jnp.split(both, 2, axis=-1)
    weights = jax.vmap(weights_of_slots)(routing.weights, slots)[:, :, None]
    outside = grouped_matmul(config.activation(gate) * up * weights.astype(x.dtype), down, sizes)
    return _combine(outside, slots)


def _combine(outside: jax.Array, slots: Slots) -> jax.Array:
    """`[B, T, D]`: the sum of every token's choices, which are weighted already."""
    return jnp.sum(jax.vmap(from_slots)(outside, slots), axis=2)
