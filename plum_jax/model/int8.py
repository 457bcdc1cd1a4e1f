"""Weights kept as 8-bit numbers with a float32 scale for each channel; products are made of what they stand for."""

from __future__ import annotations

import re
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

# Axes that a scale is taken over: a table has a scale a row, the others one for each entry that their product gives.
_AXES: dict[str, tuple[int, ...]] = {
    "embedding": (-1,),
    "position_embedding": (-1,),
    "type_embedding": (-1,),
    "head": (-1,),
    "out": (0, 1, 2),
}


@flax.struct.dataclass
class Int8Weights:
    """values * scale stands for the weights; each is off by at most half its scale, and the largest by nothing.

    Attributes:
      values: int8, of the weights' shape.
      scale: float32, of that shape with 1 along the axes that it was taken over.
    """

    values: jax.Array
    scale: jax.Array


def quantised(params: Any, kept: str = "") -> Any:
    """Parameters with `Int8Weights` for the matrices; vectors (norms, biases) stay as they are.

    Args:
      params: a tree of dictionaries; of a decoder whose layers are not scanned.
      kept: a regular expression, searched in paths such as "decoder/transformer/layer_0/mlp/down", of what stays as it
        is besides; "": nothing.
    """

    def one(keys: Any, leaf: Any) -> Any:
        names = [str(getattr(key, "key", key)) for key in keys]
        if np.ndim(leaf) < 2 or names[-1].endswith("bias") or (kept and re.search(kept, "/".join(names))):
            return leaf
        axes = _AXES.get(names[-1], (0,))
        largest = jnp.max(jnp.abs(leaf), axis=axes, keepdims=True).astype(jnp.float32)
        scale = jnp.where(largest == 0, 1.0, largest / 127.0)
        return Int8Weights(jnp.round(leaf / scale).astype(jnp.int8), scale)

    return jax.tree_util.tree_map_with_path(one, params)


def dequantised(params: Any) -> Any:
    """The weights that they stand for, float32; called inside a compiled function, where XLA reads the 8-bit ones."""

    def one(leaf: Any) -> Any:
        return leaf.values.astype(jnp.float32) * leaf.scale if isinstance(leaf, Int8Weights) else leaf

    return jax.tree.map(one, params, is_leaf=lambda leaf: isinstance(leaf, Int8Weights))


def size_in_bytes(params: Any) -> int:
    """Of all arrays, scales among them."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
