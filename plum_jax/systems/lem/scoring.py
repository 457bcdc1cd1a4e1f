"""The towers' vectors of users and of all items, block by block."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.feeds.histories import latest_items
from plum_jax.model.masks import prompt_mask
from plum_jax.systems.lem.network import TwoTowers
from plum_jax.systems.scored_items import Scorer, in_blocks

_USERS, _ITEMS = 256, 4096  # of one device call


def lem_scorer(network: TwoTowers, features: np.ndarray, history_length: int) -> Scorer:
    """Scores of two towers, by the latest items of a history.

    Args:
      network: the towers.
      features: float32 [N, F] of all items.
      history_length: items that are read.
    """

    def users(params: Any, histories: list[np.ndarray]) -> np.ndarray:
        items, lengths = latest_items(histories, history_length)
        run = functools.partial(last_users, network, params)
        return in_blocks(lambda i, n: run(i, features[i], n), _USERS, items, lengths)

    def items(params: Any) -> np.ndarray:
        run = functools.partial(item_vectors, network, params)
        return in_blocks(run, _ITEMS, np.arange(network.num_items, dtype=np.int32), features)

    return Scorer(users, items)


@functools.partial(jax.jit, static_argnums=0)
def last_users(network: TwoTowers, params: Any, items: jax.Array, features: jax.Array, lengths: jax.Array) -> jax.Array:
    """float32 [U, D] behind the last of `lengths` [U] items of `items` [U, T] with `features` [U, T, F]."""
    positions = jnp.broadcast_to(jnp.arange(items.shape[1], dtype=jnp.int32), items.shape)
    mask = prompt_mask(lengths, items.shape[1])
    values: Any = network.apply({"params": params}, items, features, positions, mask, method="users")
    return jnp.take_along_axis(values, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)[:, 0]


@functools.partial(jax.jit, static_argnums=0)
def item_vectors(network: TwoTowers, params: Any, items: jax.Array, features: jax.Array) -> jax.Array:
    """float32 [n, D] of items int32 [n] with `features` [n, F]."""
    vectors: Any = network.apply({"params": params}, items, features, method="item_vectors")
    return vectors
