"""Initial parameters of a decoder: random ones, or those that were read."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.decoder import Decoder
from plum_jax.training.step import FromHost, Initialiser


def initial_params(decoder: Decoder, warm_start: Any = None) -> Initialiser:
    """Parameters with their logical axes: random ones, or those of `warm_start` (host arrays) when it is not None."""
    one = jnp.zeros((1, 1), jnp.int32)

    def init(key: jax.Array) -> Any:
        return decoder.init(key, one, one, jnp.ones((1, 1, 1), bool))["params"]

    def read(key: jax.Array) -> Any:
        return jax.tree.map(
            lambda box, value: box.replace_boxed(value),
            jax.eval_shape(init, key),
            warm_start,
            is_leaf=lambda x: isinstance(x, nn.Partitioned),
        )

    return init if warm_start is None else FromHost(read)
