"""Reading a sequence piece by piece with a bounded cache: what local attention of the same window gives in one piece.

A layer with a window of W sees W - 1 positions before its own; so keys and values of the last W - 1 positions are all
that the next ones need. Pieces of many positions make the vectors of a table; pieces of one are a stream.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.model.cache import KVCache
from plum_jax.payments.network import TrunkNetworkConfig


@flax.struct.dataclass
class BoundedCache:
    """Keys and values of the last W - 1 positions of B sequences.

    Attributes:
      keys, values: float `[layers, B, W - 1, K, H]`, the oldest first.
      positions: int32 `[B, W - 1]`; -1: nothing there yet.
    """

    keys: Any
    values: Any
    positions: Any


def empty_cache(config: TrunkNetworkConfig, batch: int) -> BoundedCache:
    """Of sequences that have not begun (host arrays)."""
    c, slots = config.layers, config.window - 1
    shape = (c.num_layers, batch, slots, c.num_kv_heads, c.head_dim)
    zeros = np.zeros(shape, jnp.dtype(c.dtype))
    return BoundedCache(zeros, zeros.copy(), np.full((batch, slots), -1, np.int32))


@functools.partial(jax.jit, static_argnums=0)
def read_on(network: nn.Module, params: Any, batch: Mapping[str, jax.Array], cache: BoundedCache) -> tuple[Any, Any]:
    """The network's output for the next T positions of B sequences, and the cache behind them.

    Args:
      network: a trunk or a classifier, called with `(batch, mask=, cache=)`; layers are not scanned, and all are local.
      params: of it.
      batch: its columns, `[B, T, ...]`, with "decoder_positions".
      cache: of the positions before.
    """
    positions = batch["decoder_positions"]
    seen = jnp.concatenate([cache.positions, positions], axis=1)
    # The window itself is the layers' own matter.
    mask = (seen[:, None, :] >= 0) & (seen[:, None, :] <= positions[:, :, None])
    layers = range(len(cache.keys))
    before = KVCache(
        ((tuple(cache.keys[i] for i in layers), tuple(cache.values[i] for i in layers)),), (cache.positions,)
    )
    output: Any = network.apply({"params": params}, batch, mask=mask, cache=before)
    slots = cache.positions.shape[1]

    def kept(which: int) -> jax.Array:
        pieces = [piece[which] for piece in output.cache.pieces]
        return jnp.stack([jnp.concatenate([piece[i] for piece in pieces], axis=1)[:, -slots:] for i in layers])

    return output._replace(cache=None), BoundedCache(kept(0), kept(1), seen[:, -slots:])
