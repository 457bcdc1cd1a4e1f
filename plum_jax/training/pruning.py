"""Gradual magnitude pruning (Zhu & Gupta, arXiv 1710.01878): an optimizer under which small weights become zeros."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plum_jax.training.optimizer import AdamW
from plum_jax.training.parameter_roles import path_of


@dataclasses.dataclass(frozen=True)
class Pruned:
    """An optimizer after whose every step the smallest weights of each matrix are 0.

    Their share follows sparsity * (1 - (1 - t)^3), t from 0 to 1 between two shares of the steps; what is 0 stays 0
    unless one step makes it larger than what is kept. A sparsity of 0 is the optimizer itself, bit for bit.

    Attributes:
      optimizer: what is wrapped.
      sparsity: share of each matrix that is 0 at the end.
      begin, end: shares of the steps between which the share grows; behind `end` what is left is trained on.
      pattern: a regular expression for paths; of what matches, arrays of two and more axes are pruned.
    """

    optimizer: AdamW = AdamW()
    sparsity: float = 0.8
    begin: float = 0.1
    end: float = 0.7
    pattern: str = ".*(attention|mlp)/.*"

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1 or not 0 <= self.begin < self.end <= 1:
            raise ValueError(f"expected 0 <= sparsity < 1 and 0 <= begin < end <= 1, got {self}")

    def share(self, step: jax.Array, steps: int) -> jax.Array:
        """float32, of zeros after so many of the steps."""
        begin, end = self.begin * steps, self.end * steps
        done = jnp.clip((step - begin) / (end - begin), 0.0, 1.0)
        return self.sparsity * (1 - (1 - done) ** 3)

    def build(self, steps: int) -> optax.GradientTransformation:
        """The transformation for a run of `steps`."""

        def init(params: Any) -> optax.ScaleByScheduleState:
            return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

        def update(updates: Any, state: optax.ScaleByScheduleState, params: Any = None) -> tuple[Any, Any]:
            share = self.share(state.count + 1, steps)
            matches = re.compile(self.pattern).fullmatch

            def one(keys: Any, update: jax.Array, param: jax.Array) -> jax.Array:
                return _zeroing(update, param, share) if param.ndim > 1 and matches(path_of(keys)) else update

            return jax.tree_util.tree_map_with_path(one, updates, params), optax.ScaleByScheduleState(state.count + 1)

        return optax.chain(self.optimizer.build(steps), optax.GradientTransformation(init, update))


def _zeroing(update: jax.Array, param: jax.Array, share: jax.Array) -> jax.Array:
    """The update behind which the share of the smallest entries is 0, exactly; the others get theirs."""
    size = jnp.abs(param + update)
    count = jnp.floor(share * size.size).astype(jnp.int32)
    largest_zero = jnp.sort(size.ravel())[jnp.maximum(count - 1, 0)]
    return jnp.where((count > 0) & (size <= largest_zero), -param, update)


def zero_share(params: Any, pattern: str = Pruned.pattern) -> float:
    """Of the entries of the matrices that a pattern matches, how many are 0."""
    leaves = pruned_matrices(params, pattern)
    return sum(int((leaf == 0).sum()) for leaf in leaves) / max(sum(leaf.size for leaf in leaves), 1)


def pruned_matrices(params: Any, pattern: str = Pruned.pattern) -> list[np.ndarray]:
    """The matrices that a pattern matches."""
    matches = re.compile(pattern).fullmatch
    return [
        np.asarray(leaf)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(params)
        if np.ndim(leaf) > 1 and matches(path_of(keys))
    ]
