"""Parameters as T5X keeps them: plain arrays, and the names of their axes in a collection beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
from flax.linen.partitioning import AxisMetadata

from plum_jax.model.decoder import Decoder
from plum_jax.training.initial import initial_params


def variables_of(boxed: Any) -> Any:
    """ "params" and "params_axes" of parameters with logical axes in their boxes."""
    return flax.core.freeze({"params": nn.unbox(boxed), "params_axes": _axes(boxed)})


def _axes(node: Any) -> Any:
    """The tree of axes: T5X wants "_axes" behind the name of each leaf."""
    named: dict[str, Any] = {}
    for name, child in node.items():
        if isinstance(child, Mapping):
            named[name] = _axes(child)
        else:
            names = child.names if isinstance(child, nn.Partitioned) else (None,) * child.ndim
            named[f"{name}_axes"] = AxisMetadata(tuple(names))
    return named


def plain(params: Any) -> Any:
    """Dictionaries where T5X has frozen ones."""
    return flax.core.unfreeze(params) if isinstance(params, flax.core.FrozenDict) else params


def shapes_of(decoder: Decoder) -> Any:
    """Shapes and types of a decoder's parameters, a tree of `jax.ShapeDtypeStruct`."""
    init = initial_params(decoder)
    assert callable(init)
    return nn.unbox(jax.eval_shape(init, jax.random.key(0)))
