"""From feature blocks to what a quantiser reads: rows of one scale, centred on the items it was fitted to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from plum_jax.corpus.features import FeatureBlock, ItemFeatures
from plum_jax.corpus.features.block import normalised


class QuantizerError(ValueError):
    """Features and codebooks that do not fit each other."""


@dataclasses.dataclass(frozen=True, eq=False)
class BlockInput:
    """How a feature block enters a quantiser, frozen when it is fitted: `(x - mean) * scale`, and 0 where it is absent.

    Attributes:
      name: of the block.
      normalise: whether a row is scaled to length 1 first.
      mean: float32 [D], over the items that have the block; so an absent one draws an item to no code in particular.
      scale: how much the block counts.
    """

    name: str
    normalise: bool
    mean: np.ndarray
    scale: float

    @property
    def dim(self) -> int:
        return len(self.mean)

    def __call__(self, features: ItemFeatures) -> tuple[np.ndarray, np.ndarray]:
        """The block's rows float32 [N, D] and which items have it, bool [N].

        Raises:
          FeatureError: there is no such block.
          QuantizerError: another dimension than the quantiser was fitted to, NaN or infinity.
        """
        block = features.block(self.name)
        if block.dim != self.dim:
            raise QuantizerError(
                f"feature block {self.name!r} has {block.dim} dimensions, the codebooks were made for {self.dim}: "
                "make the features the way they were made then"
            )
        _check_finite(block)
        values = normalised(block.values) if self.normalise else block.values
        rows = (values - self.mean) * np.float32(self.scale)
        rows[~block.present] = 0
        return rows, block.present


def fit_inputs(
    features: ItemFeatures, block_weights: Mapping[str, float] | None = None, normalise: bool = True
) -> tuple[BlockInput, ...]:
    """The inputs that these items define, in the order of their blocks.

    Args:
      features: blocks of the items that a quantiser is fitted to.
      block_weights: block name -> weight; blocks that are not named are left out. None: all, with weight 1. As rows are
        scaled to length 1, a weight says how much a block counts, whatever its dimension and scale.
      normalise: whether rows are scaled to length 1.

    Raises:
      FeatureError: a name of no block.
      QuantizerError: a weight that is not above 0, NaN or infinity, a block that no item has, or features that are the
        same for all items.
    """
    weights = {block.name: 1.0 for block in features.blocks} if block_weights is None else dict(block_weights)
    if not weights or min(weights.values()) <= 0:
        raise QuantizerError(f"expected weights above 0 for one or more feature blocks, got {weights}")
    for name in weights:
        features.block(name)
    inputs, varies = [], False
    for block in features.blocks:
        if block.name not in weights:
            continue
        if not block.present.any():
            raise QuantizerError(f"no item has feature block {block.name!r}: leave it out of `block_weights`")
        _check_finite(block)
        values = (normalised(block.values) if normalise else block.values)[block.present]
        varies |= bool((values != values[0]).any())
        inputs.append(BlockInput(block.name, normalise, values.mean(axis=0), weights[block.name]))
    if not varies and features.num_items > 1:
        raise QuantizerError(
            f"all {features.num_items} items have the same features: nothing can tell their SIDs apart"
        )
    return tuple(inputs)


def with_mean_squared_length(inputs: Sequence[BlockInput], features: ItemFeatures, length: float) -> tuple:
    """Inputs rescaled so that the rows of the items that have a block have this mean squared length, times its weight.

    A block that is one constant vector keeps its scale: it says nothing at any scale.
    """
    scaled = []
    for block_input in inputs:
        rows, present = dataclasses.replace(block_input, scale=1.0)(features)
        mean = float(np.square(rows[present], dtype=np.float64).sum(axis=1).mean())
        factor = np.sqrt(length / mean) if mean > 0 else 1.0
        scaled.append(dataclasses.replace(block_input, scale=float(block_input.scale * factor)))
    return tuple(scaled)


def imputed_items(inputs: Sequence[BlockInput], features: ItemFeatures) -> dict[str, int]:
    """Block name -> items that do not have it, for the report."""
    return {block_input.name: int((~features.block(block_input.name).present).sum()) for block_input in inputs}


def _check_finite(block: FeatureBlock) -> None:
    wrong = block.present & ~np.isfinite(block.values).all(axis=1)
    if wrong.any():
        raise QuantizerError(
            f"feature block {block.name!r} has NaN or infinity at item row {np.argmax(wrong)}, and at "
            f"{int(wrong.sum()) - 1} more: correct what the block is made from"
        )
