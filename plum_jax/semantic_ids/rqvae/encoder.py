"""The trained encoder of an RQ-VAE as a codec holds it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from plum_jax.corpus.features import ItemFeatures
from plum_jax.semantic_ids.inputs import BlockInput
from plum_jax.semantic_ids.rqvae.network import Params, RqVaeNetwork

ROWS_AT_ONCE = 4096  # items encoded together


@dataclasses.dataclass(frozen=True, eq=False)
class RqVaeEncoder:
    """Inputs, and the network that makes latents of them.

    Attributes:
      inputs: feature blocks in the network's order.
      network: its shape.
      params: what was trained.
      fuse_blocks: the blocks side by side are the network's one block (SID-v1).
    """

    inputs: tuple[BlockInput, ...]
    network: RqVaeNetwork
    params: Params
    fuse_blocks: bool

    def __call__(self, features: ItemFeatures) -> np.ndarray:
        blocks, present = read_inputs(self.inputs, features, self.fuse_blocks)
        return encode(self.network, self.params, blocks, present)

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Shape as JSON values, parameters as arrays under their paths; codebooks are the codec's."""
        facts = {f.name: getattr(self.network, f.name) for f in dataclasses.fields(self.network) if f.name in _SHAPE}
        flat = flax.traverse_util.flatten_dict(dict(self.params), sep="/")
        arrays = {name: np.asarray(value) for name, value in flat.items()}
        return {**facts, "fuse_blocks": self.fuse_blocks}, arrays

    @classmethod
    def from_arrays(
        cls, facts: Mapping[str, Any], inputs: tuple[BlockInput, ...], arrays: Mapping[str, np.ndarray]
    ) -> RqVaeEncoder:
        """What `to_arrays` gave, as an encoder again."""
        shape: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in facts.items()}
        fuse_blocks = bool(shape.pop("fuse_blocks"))
        params = flax.traverse_util.unflatten_dict(dict(arrays), sep="/")
        return cls(inputs, RqVaeNetwork(**shape), params, fuse_blocks)


_SHAPE = ("block_dims", "hidden_dims", "encoder_dim", "latent_dim", "codebook_sizes", "head_dims", "gradient")


def read_inputs(
    inputs: Sequence[BlockInput], features: ItemFeatures, fuse_blocks: bool
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Blocks float32 [N, D_m] and presence bool [N]; fused, one block that every item has (absent parts are 0)."""
    blocks, present = zip(*(block_input(features) for block_input in inputs), strict=True)
    if fuse_blocks:
        return (np.concatenate(blocks, axis=1),), (np.ones(features.num_items, bool),)
    return blocks, present


def encode(
    network: RqVaeNetwork, params: Params, blocks: Sequence[np.ndarray], present: Sequence[np.ndarray]
) -> np.ndarray:
    """Latents, float32 [N, D], of blocks [N, D_m]."""
    num_items = len(present[0])
    parts = [np.asarray(_encode(network, params, *piece)) for piece in pieces(blocks, present)]
    return np.concatenate(parts)[:num_items]


@functools.partial(jax.jit, static_argnums=0)
def _encode(network: RqVaeNetwork, params: Params, blocks: Any, present: Any) -> jax.Array:
    latents: Any = network.apply({"params": params}, blocks, present, method="encode")
    return latents


def pieces(
    blocks: Sequence[np.ndarray], present: Sequence[np.ndarray]
) -> Iterator[tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]]:
    """Rows in pieces of one shape, the last filled up: compiled once, and a row never depends on its neighbours."""
    for start in range(0, len(present[0]), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        missing = max(0, start + ROWS_AT_ONCE - len(present[0]))
        yield (
            tuple(np.pad(block[rows], ((0, missing), (0, 0))) for block in blocks),
            tuple(np.pad(has[rows], (0, missing)) for has in present),
        )
