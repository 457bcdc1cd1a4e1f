"""Knowledge querying: what a trained user model answers about users under conditions (§3.2)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.model.beam_attention import BeamAttention
from plum_jax.model.item_history import Items
from plum_jax.systems.known import Known
from plum_jax.systems.lum.network import LumNetwork, tokens_of
from plum_jax.systems.scored_items import in_blocks

_USERS, _ITEMS = 64, 4096  # of one device call


@dataclasses.dataclass(frozen=True, eq=False)
class Asker:
    """A network with all that is known of items and events.

    Attributes:
      network: that was trained.
      known: items, and as fields of events the conditions.
      item: int32 [E], of each event.
      history_length: the latest events of a user that are read.
    """

    network: LumNetwork
    known: Known
    item: np.ndarray
    history_length: int

    def conditions(self, asked: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """int32 [N, F] of conditions by name, e.g. [{"rating": 5}, {"rating": 1}]."""
        return np.stack([self.known.events.asked(values) for values in asked])

    def answers(self, params: Any, histories: Sequence[np.ndarray], conditions: np.ndarray) -> np.ndarray:
        """o_q: float32 [U, N, D] of N conditions about each user: a group query.

        The keys and values of a history are computed once for all conditions, which do not see each other, so that each
        answer is that of a query by itself. A user without history is asked about nobody in particular.

        Args:
          params: of the network.
          histories: int64 [n], rows of the corpus's events, oldest first.
          conditions: int32 [N, F] for all users, or [U, N, F].
        """
        conditions = np.broadcast_to(conditions, (len(histories), *conditions.shape[-2:]))
        events, segments, positions = latest_events(histories, self.history_length)
        run = functools.partial(_group, self.network, params)

        def ask(events: np.ndarray, *others: np.ndarray) -> jax.Array:
            return run(*self.read(events), *others)

        return in_blocks(ask, min(_USERS, len(histories)), events, segments, positions, conditions)

    def items(self, params: Any) -> np.ndarray:
        """e_i: float32 [N, D] of all items."""
        ids = np.arange(self.network.num_items, dtype=np.int32)
        run = functools.partial(_item_vectors, self.network, params)
        return in_blocks(lambda some: run(self.known.items(some)), min(_ITEMS, len(ids)), ids)

    def read(self, events: np.ndarray) -> tuple[Items, np.ndarray]:
        """Items and conditions of events [B, T]."""
        return self.known.items(self.item[events]), self.known.events.buckets[events]


def latest_events(histories: Sequence[np.ndarray], most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The last events of each history with zeros on the right, int64 [U, most], and their segments and positions."""
    lengths = np.array([min(len(history), most) for history in histories], np.int32)
    events = np.zeros((len(histories), most), np.int64)
    for row, (history, length) in enumerate(zip(histories, lengths, strict=True)):
        events[row, :length] = history[len(history) - length :]
    places = np.broadcast_to(np.arange(most, dtype=np.int32), events.shape)
    return events, (places < lengths[:, None]).astype(np.int32), places.copy()


@functools.partial(jax.jit, static_argnums=0)
def _group(
    network: LumNetwork,
    params: Any,
    items: Items,
    fields: jax.Array,
    segments: jax.Array,
    positions: jax.Array,
    conditions: jax.Array,
) -> jax.Array:
    cache: Any = network.apply({"params": params}, items, fields, segments, positions, method="read")
    seen = (tokens_of(segments) > 0)[:, None]
    behind = jnp.broadcast_to(2 * jnp.sum(segments, axis=1, keepdims=True), conditions.shape[:2])
    return _ask(network, params, cache, conditions, seen, behind)


def _ask(network: LumNetwork, params: Any, *arguments: Any) -> jax.Array:
    asking = network.clone(attention=BeamAttention())
    found: Any = asking.apply({"params": params}, *arguments, method="ask")
    return found


@functools.partial(jax.jit, static_argnums=0)
def moments(
    network: LumNetwork,
    params: Any,
    items: Items,
    fields: jax.Array,
    segments: jax.Array,
    positions: jax.Array,
    conditions: jax.Array,
) -> jax.Array:
    """o_q before every event of packed rows `[B, T]`: float32 `[N, B, T, D]` of conditions int32 `[N, F]`.

    Event t is asked about with the events before it in its segment, whose keys and values are computed once for all
    moments and conditions.
    """
    cache: Any = network.apply({"params": params}, items, fields, segments, positions, method="read")
    places = jnp.arange(segments.shape[1])
    same = segments[:, :, None] == segments[:, None, :]
    seen = jnp.repeat(same & (places[None, :] < places[:, None]), 2, axis=2)

    def one(condition: jax.Array) -> jax.Array:
        asked = jnp.broadcast_to(condition, (*segments.shape, condition.shape[0]))
        return _ask(network, params, cache, asked, seen, 2 * positions)

    return jax.lax.map(one, conditions)


@functools.partial(jax.jit, static_argnums=0)
def _item_vectors(network: LumNetwork, params: Any, items: Items) -> jax.Array:
    vectors: Any = network.apply({"params": params}, items, method="item_vectors")
    return vectors
