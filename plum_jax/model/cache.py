"""Keys and values of the tokens so far: an explicit pytree that goes in and comes out, one piece longer."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class KVCache:
    """Keys and values of the tokens so far, one piece for each call of the decoder.

    A piece is never moved, padded or copied: a call reads all pieces and adds one. `KVCache()` is empty.

    Attributes:
      pieces: (key, value) of each call's T tokens, rotary positions already applied: `[layers, B, T, K, H]` where
        layers are scanned, else for each layer one `[B, T, K, H]`.
      positions: of each piece, `[B, T]` int32: what windows are measured by.
    """

    pieces: tuple[tuple[Any, Any], ...] = ()
    positions: tuple[jax.Array, ...] = ()

    def layer(self, number: int) -> tuple[tuple[jax.Array, jax.Array], ...]:
        """The pieces of one layer, where layers are not scanned."""
        return tuple((key[number], value[number]) for key, value in self.pieces)

    def with_piece(self, piece: tuple[Any, Any], positions: jax.Array) -> KVCache:
        """The cache with one more piece."""
        return KVCache((*self.pieces, piece), (*self.positions, positions.astype(jnp.int32)))
