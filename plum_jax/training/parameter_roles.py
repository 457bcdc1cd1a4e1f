"""What each parameter is to an optimizer, by its path: a matrix (and of which axes), a table, a vector.

The decoder stores fused and stacked arrays; here is written which of their axes make a real matrix.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
from optax.contrib import MuonDimensionNumbers

Kind = Literal["heads", "hidden", "router", "table", "vector", "dense"]


class Role(NamedTuple):
    """A kind of parameter.

    Attributes:
      kind: "heads" (D to one head), "hidden" (both sides grow with D), "router" (D to experts), "table" (a row for each
        token), "vector" (norms and biases), "dense" (a Linen Dense kernel outside the decoder).
      matrix: axes of its matrices, counted from the end, for what is orthogonalised; all others (layers, experts, gate
        and up, heads) tell matrices apart. None: no matrix between activations.
      width_axis: the axis that is D, counted from the end; None where the parameter has none.
    """

    kind: Kind
    matrix: MuonDimensionNumbers | None = None
    width_axis: int | None = None


_NORM_OR_BIAS = r"(.*[/_])?(scale|bias|norm)"
_ROLES: tuple[tuple[str, Role], ...] = (
    (_NORM_OR_BIAS, Role("vector")),
    (r"(.*/)?((position_|type_)?embedding|head)", Role("table", None, -1)),
    # [D, K, G+2, H]: a matrix [D, H] for each head.
    (r".*/attention/qkv", Role("heads", MuonDimensionNumbers(-4, -1), -4)),
    # [K, G, H, D]: all heads feed one sum, so they are one matrix [N*H, D].
    (r".*/attention/out", Role("hidden", MuonDimensionNumbers((-4, -3, -2), -1), -1)),
    # [D, 2, F], of experts [E, D, 2, F]: gate and up are matrices of their own.
    (r".*/gate_up", Role("hidden", MuonDimensionNumbers(-3, -1), -3)),
    (r".*/mlp/up", Role("hidden", MuonDimensionNumbers(-2, -1), -2)),
    (r".*/adapter/down", Role("heads", MuonDimensionNumbers(-2, -1), -2)),
    (r".*/(adapter/up|down)", Role("hidden", MuonDimensionNumbers(-2, -1), -1)),
    (r".*/gate", Role("hidden", MuonDimensionNumbers(-2, -1), -1)),
    (r".*/router", Role("router", None, -2)),
    (r"(.*/)?kernel", Role("dense", MuonDimensionNumbers(-2, -1))),
)


def path_of(keys: tuple[Any, ...]) -> str:
    """A parameter's path, e.g. "transformer/layers/attention/qkv"."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in keys)


def map_with_path(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """`function(path, leaf)` of every leaf; what an optimizer masks out stays masked."""
    return jax.tree_util.tree_map_with_path(lambda keys, leaf: function(path_of(keys), leaf), tree)


def role_of(path: str) -> Role | None:
    """The role of the parameter at `path`; None for one that is no part of the decoder and no Dense kernel."""
    return next((role for pattern, role in _ROLES if re.fullmatch(pattern, path)), None)


def is_decayed(path: str) -> bool:
    """Weight decay is for tables and matrices, not for norm scales and biases."""
    return not re.fullmatch(_NORM_OR_BIAS, path)
