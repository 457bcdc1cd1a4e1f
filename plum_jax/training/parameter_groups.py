"""What trains how: patterns that scale rates, freeze parameters or rows, or keep parameters in a convex set."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from plum_jax.frank_wolfe.gradient_transformation import frank_wolfe
from plum_jax.frank_wolfe.sets import ConstraintSet
from plum_jax.training.parameter_roles import map_with_path, path_of


@dataclasses.dataclass(frozen=True)
class ParameterGroups:
    """What trains how fast. A pattern is a regular expression for a path such as "transformer/layers/attention/qkv", or
    for a folder of it: "transformer/.*attention" has all below `attention`, and not `attention_norm/scale`.

    Attributes:
      rules: (pattern, multiplier of the learning rate); the first that matches a parameter holds, the others train at
        the full rate. 0.0 freezes: no update, no weight decay, no slots, no part in the clipped norm.
      frozen_rows: (pattern, n): the first n rows (axis 0) stay as they are, e.g. the text pieces of an `embedding` that
        has grown by Semantic IDs. Slots are kept for all rows.
      sets: (pattern, convex set); each parameter that matches lies in the set from the first step on, by Frank-Wolfe
        with averaged gradients instead of the optimizer (`plum_jax.frank_wolfe`); the first pattern that matches holds,
        before any rule.
    """

    rules: tuple[tuple[str, float], ...] = ()
    frozen_rows: tuple[tuple[str, int], ...] = ()
    sets: tuple[tuple[str, ConstraintSet], ...] = ()

    def __post_init__(self) -> None:
        for pattern, number in (*self.rules, *self.frozen_rows):
            re.compile(pattern)
            if number < 0:
                raise ValueError(f"expected multipliers and rows of at least 0, got {number} for {pattern!r}")
        for pattern, _ in self.sets:
            re.compile(pattern)

    def apply(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        """`optimizer` under these rules; itself where there are none.

        Raises (from `init`):
          ValueError: a pattern matches no parameter, or freezes more rows than there are.
        """
        if not self.rules and not self.frozen_rows and not self.sets:
            return optimizer
        # Rows are taken out of the gradients, for the norm and the moments, and of the updates, for the weight decay.
        rows = optax.stateless(lambda updates, _: map_with_path(self._without_rows, updates))
        scaled = optax.stateless(lambda updates, _: map_with_path(self._scaled, updates))
        trained = optax.chain(rows, optimizer, scaled, rows)
        kept_in = {f"set {number}": frank_wolfe(domain, average=True) for number, (_, domain) in enumerate(self.sets)}
        return optax.partition({"trained": trained, "frozen": optax.set_to_zero(), **kept_in}, self._labels)

    def _labels(self, params: Any) -> Any:
        paths = [path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)]
        for pattern, _ in (*self.rules, *self.frozen_rows, *self.sets):
            if not any(matches(pattern, path) for path in paths):
                raise ValueError(f"no parameter matches {pattern!r}: {_hint(pattern, paths)}")
        return map_with_path(lambda path, _: self._label(path), params)

    def _label(self, path: str) -> str:
        number = next((number for number, (pattern, _) in enumerate(self.sets) if matches(pattern, path)), None)
        if number is not None:
            return f"set {number}"
        return "trained" if self._multiplier(path) else "frozen"

    def _multiplier(self, path: str) -> float:
        return next((multiplier for pattern, multiplier in self.rules if matches(pattern, path)), 1.0)

    def _scaled(self, path: str, update: jax.Array) -> jax.Array:
        multiplier = self._multiplier(path)
        return update if multiplier == 1.0 else update * multiplier

    def _without_rows(self, path: str, update: jax.Array) -> jax.Array:
        frozen = next((count for pattern, count in self.frozen_rows if matches(pattern, path)), 0)
        if not frozen:
            return update
        if frozen > update.shape[0]:
            raise ValueError(f"expected at most {update.shape[0]} frozen rows of {path}, got {frozen}")
        rows = jax.lax.broadcasted_iota(jnp.int32, update.shape, 0)
        return jnp.where(rows < frozen, 0, update)


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern is of this parameter, or of a folder that it lies in."""
    return re.fullmatch(f"(?:{pattern})(?:/.*)?", path) is not None


def _hint(pattern: str, paths: Iterable[str]) -> str:
    names = sorted(paths)
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
