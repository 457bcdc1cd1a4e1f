"""Which parameter an optimizer's slot belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from plum_jax.training.parameter_roles import path_of


def map_slots(function: Callable[[Any, Any], Any], slots: Any, params: Any) -> Any:
    """`function(slot, its parameter)` of every array of an optimizer's state; the parameter is None for a counter.

    A slot's path ends in its parameter's, however deep the optimizer is nested in masks and partitions, in which
    Optax's own `tree_map_params` loses its way. It need not have the parameter's shape (Adafactor's rows and columns).
    """
    by_path = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def one(keys: tuple[Any, ...], slot: Any) -> Any:
        # The longest suffix first: "a/embedding" is not "embedding".
        suffixes = (path_of(keys[start:]) for start in range(len(keys)))
        return function(slot, next((by_path[path] for path in suffixes if path in by_path), None))

    return jax.tree_util.tree_map_with_path(one, slots)
