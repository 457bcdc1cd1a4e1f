"""A user's vector is the state behind the last item of the history; an item's is its row of the table."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.feeds.histories import latest_items
from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import prompt_mask
from plum_jax.systems.scored_items import Scorer, in_blocks

_BLOCK = 256  # users of one device call


def sasrec_scorer(network: Decoder, history_length: int) -> Scorer:
    """Scores of a decoder over items, by the latest items of a history."""

    def users(params: Any, histories: list[np.ndarray]) -> np.ndarray:
        items, lengths = latest_items(histories, history_length)
        return in_blocks(functools.partial(last_states, network, params), _BLOCK, items, lengths)

    def table(params: Any) -> np.ndarray:
        config = network.config
        rows = np.asarray(params["embedding" if config.tied_embeddings else "head"], np.float32)
        return rows * np.float32(config.logits_scale)

    return Scorer(users, table)


@functools.partial(jax.jit, static_argnums=0)
def last_states(network: Decoder, params: Any, items: jax.Array, lengths: jax.Array) -> jax.Array:
    """float32 [U, D]: the state at the last of `lengths` [U] items of each row of `items` [U, T]."""
    positions = jnp.broadcast_to(jnp.arange(items.shape[1], dtype=jnp.int32), items.shape)
    mask = prompt_mask(lengths, items.shape[1])
    output: Any = network.apply({"params": params}, items, positions, mask, method="hidden")
    place = jnp.maximum(lengths - 1, 0)[:, None, None]
    return jnp.take_along_axis(output.values, place, axis=1)[:, 0].astype(jnp.float32)
