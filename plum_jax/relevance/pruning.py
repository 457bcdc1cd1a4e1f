"""Gradual pruning of layers: while a cross-encoder is trained on, its least important layer goes, one after another."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.encoders.network import trunk_of, with_trunk
from plum_jax.relevance.cross_network import CrossNetwork


@dataclasses.dataclass(frozen=True)
class GradualPruning:
    """Training in phases, one a depth: L layers, L - 1, ..., `layers`; before each phase but the first a layer goes.

    A phase has the schedule and the optimizer of the training, anew, over its own steps. With `layers` = L nothing is
    pruned, and it is the training without.

    Attributes:
      layers: that stay.
      first: share of the steps before the first layer goes, 0 where training begins with a trained model; the other
        phases share the rest equally.
    """

    layers: int
    first: float = 0.0

    def __post_init__(self) -> None:
        if self.layers < 1 or not 0 <= self.first < 1:
            raise ValueError(f"expected at least one layer that stays and first in [0, 1), got {self}")

    def phases(self, layers: int, steps: int) -> list[tuple[int, int]]:
        """Depth and steps of each phase that has some.

        Args:
          layers: L.
          steps: of all phases.

        Raises:
          ValueError: more layers stay than there are.
        """
        if self.layers > layers:
            raise ValueError(f"expected at most {layers} layers that stay, as many as there are, got {self.layers}")
        if self.layers == layers:
            return [(layers, steps)]
        first = round(self.first * steps)
        bounds = np.linspace(first, steps, layers - self.layers + 1).round().astype(int)
        phases = [(layers, first), *zip(range(layers - 1, self.layers - 1, -1), np.diff(bounds).tolist(), strict=True)]
        return [(depth, of_phase) for depth, of_phase in phases if of_phase]


def importance(network: CrossNetwork, params: Any, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """float32 [L], what each layer changes: 1 - the mean cosine of a token's stream in front of it and behind it
    (block influence of ShortGPT, arXiv 2403.03853, eq. 1).

    Args:
      network: with L layers.
      params: of it.
      batch: pairs that it is measured on.
    """
    return np.asarray(_importance(network, params, dict(batch)))


@functools.partial(jax.jit, static_argnums=0)
def _importance(network: CrossNetwork, params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
    streams = jnp.stack(network.bind({"params": params}).streams(batch))
    streams /= jnp.linalg.norm(streams, axis=-1, keepdims=True) + 1e-6
    cosine = jnp.sum(streams[:-1] * streams[1:], axis=-1)
    real = jnp.arange(cosine.shape[-1]) < batch["lengths"][:, None]
    return 1 - jnp.sum(jnp.where(real, cosine, 0), axis=(1, 2)) / jnp.sum(real)


def without_layer(params: Any, number: int) -> Any:
    """Parameters of a `CrossNetwork` without one of its layers; those behind it move up."""
    encoder = params["encoder"]
    trunk = trunk_of(encoder)
    transformer = dict(trunk["transformer"])
    layers = [transformer.pop(f"layer_{place}") for place in range(depth_of(params))]
    del layers[number]
    transformer |= {f"layer_{place}": layer for place, layer in enumerate(layers)}
    return {**params, "encoder": with_trunk(encoder, {**trunk, "transformer": transformer})}


def depth_of(params: Any) -> int:
    """Layers of a `CrossNetwork`'s parameters."""
    return sum(name.startswith("layer_") for name in trunk_of(params["encoder"])["transformer"])
