"""Item features of a run as one matrix in which no block outweighs another."""

from __future__ import annotations

import numpy as np

from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.features.block import normalised


def side_by_side(features: ItemFeatures) -> np.ndarray:
    """float32 [N, F], all blocks, each with rows of length one."""
    return np.concatenate([normalised(block.values) for block in features.blocks], axis=1)
