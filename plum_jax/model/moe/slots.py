"""Dispatch: the places (slots) that tokens get at their experts, and the way there and back. Knows no routing rule.

Everything here is of one group of tokens, whose slots are its own; `jax.vmap` makes it many, so that tokens that are
split over devices by groups are dispatched without leaving them.
"""

from __future__ import annotations

import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.model.config import MixtureOfExperts

_ALIGNMENT = 8  # capacities are multiples of this: rows of a TPU tile


@flax.struct.dataclass
class Slots:
    """A one-to-one map between assignments (token t's j-th choice is number t * k + j) and slots.

    Attributes:
      of_assignment: int32 `[T * k]`, the number of slots where an assignment was dropped.
      assignment: int32 `[S]`, T * k where a slot is empty.
      choices: k.
    """

    of_assignment: jax.Array
    assignment: jax.Array
    choices: int = flax.struct.field(pytree_node=False)


def capacity(config: MixtureOfExperts, tokens: int) -> int:
    """C: the places that an expert has for a group of so many tokens; never more than tokens."""
    even = tokens * config.experts_per_token / config.num_experts
    places = math.ceil(even * config.capacity_factor / _ALIGNMENT) * _ALIGNMENT
    return min(places, tokens)


def fixed_slots(experts: jax.Array, num_experts: int, places: int, real: jax.Array) -> Slots:
    """`places` slots for every expert: expert e has e * places and following.

    First choices are served before second ones, and earlier tokens before later ones (GShard).

    Args:
      experts: int32 `[T, k]`.
      num_experts: E.
      places: C.
      real: bool `[T]`; other tokens take no place.
    """
    by_choice = experts.T.reshape(-1)
    wanted = jnp.tile(real, experts.shape[1])
    rank, _ = _rank_within_expert(by_choice, num_experts, wanted)
    slot = jnp.where(wanted & (rank < places), by_choice * places + rank, num_experts * places)
    of_assignment = slot.reshape(experts.shape[1], experts.shape[0]).T.reshape(-1)
    return _with_inverse(of_assignment, num_experts * places, experts.shape[1])


def ragged_slots(experts: jax.Array, num_experts: int, block: int) -> tuple[Slots, jax.Array]:
    """As many slots for an expert as it was chosen, rounded up to whole blocks: nothing is dropped.

    Args:
      experts: int32 `[T, k]`.
      num_experts: E.
      block: slots of one expert come in multiples of this.

    Returns:
      the slots, T * k rounded up and E - 1 blocks more in number (some empty), and int32 `[E]`, slots of each expert.
    """
    flat = experts.reshape(-1)
    rank, count = _rank_within_expert(flat, num_experts, jnp.ones(flat.shape, bool))
    sizes = -(-count // block) * block
    start = jnp.cumsum(sizes) - sizes
    total = (math.ceil(flat.shape[0] / block) + num_experts - 1) * block
    return _with_inverse(start[flat] + rank, total, experts.shape[1]), sizes


def _rank_within_expert(experts: jax.Array, num_experts: int, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How many assignments to the same expert come before each, int32 `[A]`, and each expert's count `[E]`."""
    chosen = ((experts[:, None] == jnp.arange(num_experts)) & wanted[:, None]).astype(jnp.int32)
    running = jnp.cumsum(chosen, axis=0)
    return jnp.sum(running * chosen, axis=1) - 1, running[-1]


def _with_inverse(of_assignment: jax.Array, num_slots: int, choices: int) -> Slots:
    numbers = jnp.arange(of_assignment.shape[0], dtype=jnp.int32)
    empty = jnp.full((num_slots,), of_assignment.shape[0], jnp.int32)
    assignment = empty.at[of_assignment].set(numbers, mode="drop", unique_indices=True)
    return Slots(of_assignment=of_assignment.astype(jnp.int32), assignment=assignment, choices=choices)


@jax.custom_vjp
def to_slots(x: jax.Array, slots: Slots) -> jax.Array:
    """`[T, D]` tokens to `[S, D]` slots, 0 where empty. Its gradient is a gather too: scatters are slow everywhere."""
    return _rows(x, slots.assignment // slots.choices)


def _to_slots_backward(slots: Slots, gradient: jax.Array) -> tuple[jax.Array, Slots]:
    of_choices = _rows(gradient, slots.of_assignment)
    return jnp.sum(of_choices.reshape(-1, slots.choices, gradient.shape[-1]), axis=1), _no_gradient(slots)


to_slots.defvjp(lambda x, slots: (to_slots(x, slots), slots), _to_slots_backward)


def weights_of_slots(weights: jax.Array, slots: Slots) -> jax.Array:
    """`[T, k]` weights of choices to the `[S]` slots that they got, 0 where empty."""
    return jnp.take(weights.reshape(-1), slots.assignment, mode="fill", fill_value=0)


@jax.custom_vjp
def from_slots(y: jax.Array, slots: Slots) -> jax.Array:
    """`[S, D]` slots to the `[T, k, D]` choices of tokens, 0 where dropped; the reverse of `to_slots`."""
    return _rows(y, slots.of_assignment).reshape(-1, slots.choices, y.shape[-1])


def _from_slots_backward(slots: Slots, gradient: jax.Array) -> tuple[jax.Array, Slots]:
    return _rows(gradient.reshape(-1, gradient.shape[-1]), slots.assignment), _no_gradient(slots)


from_slots.defvjp(lambda y, slots: (from_slots(y, slots), slots), _from_slots_backward)


def _rows(x: jax.Array, numbers: jax.Array) -> jax.Array:
    return jnp.take(x, numbers, axis=0, mode="fill", fill_value=0)


def _no_gradient(slots: Slots) -> Slots:
    return jax.tree.map(lambda index: np.zeros(index.shape, jax.dtypes.float0), slots)
