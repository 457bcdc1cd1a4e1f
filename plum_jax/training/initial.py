"""What a run begins with: random parameters, those that were read, or some of both."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.model.decoder import Decoder
from plum_jax.training.step import FromHost, Initialiser


def initial_params(decoder: Decoder, warm_start: Any = None) -> Initialiser:
    """Parameters with their logical axes: random ones, or those of `warm_start` (host arrays) when it is not None."""
    one = jnp.zeros((1, 1), jnp.int32)

    def init(key: jax.Array) -> Any:
        return decoder.init(key, one, one, jnp.ones((1, 1, 1), bool))["params"]

    def read(key: jax.Array) -> Any:
        return with_values(jax.eval_shape(init, key), warm_start)

    return init if warm_start is None else FromHost(read)


def with_values(boxed: Any, values: Any) -> Any:
    """Parameters of the same tree, with the logical axes of `boxed` where it has some."""
    return jax.tree.map(
        lambda box, value: box.replace_boxed(value) if _is_box(box) else value, boxed, values, is_leaf=_is_box
    )


def warm_started(init: Initialiser, inherited: Any) -> FromHost:
    """Begins with inherited parameters, by path. A product with more inputs than its forerunner's has the old rows
    first and zeros behind, so that what is new says nothing at first (in a ranker knowledge comes behind the rest, and
    statistics come last); what else has no forerunner of its shape begins at random.
    """
    assert not isinstance(init, FromHost), "random parameters, some of which are replaced"
    old = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(inherited)}

    def make(key: jax.Array) -> Any:
        def start(path: Any, box: Any) -> Any:
            fresh, found = np.asarray(nn.unbox(box)), old.get(jax.tree_util.keystr(path))
            if found is None:
                return box
            if found.shape == fresh.shape:
                value = np.asarray(found)
            elif found.ndim == fresh.ndim == 2 and len(found) < len(fresh) and found.shape[1:] == fresh.shape[1:]:
                value = np.zeros_like(fresh)
                value[: len(found)] = found
            else:
                return box
            return with_values(box, value)

        return jax.tree_util.tree_map_with_path(start, init(key), is_leaf=_is_box)

    return FromHost(make)


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, nn.meta.AxisMetadata)
