"""What a ranker knows of every item, in arrays that its network holds as constants."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from plum_jax import artifact
from plum_jax.corpus.features.block import normalised
from plum_jax.stages import Stages
from plum_jax.systems.known import item_statistics


@dataclasses.dataclass(frozen=True, eq=False)
class ItemSide:
    """Arrays by item.

    Attributes:
      text: float32 [N, D_t], vectors of the items' text, of the space in which queries lie, of length one or zero.
      blocks: float32 [N, D_b] each, further features, their rows of length one or zero.
      numbers: float32 [N, S], statistics of training events; S may be 0.
      words: int32 [N, W], known words of the text, 0 behind the last.
      vectors: float32 [N, D], of a user model (`vectors.UserVectors.items`); None: none.
    """

    text: np.ndarray
    blocks: tuple[np.ndarray, ...]
    numbers: np.ndarray
    words: np.ndarray
    vectors: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.text)

    @functools.cached_property
    def features(self) -> np.ndarray:
        """float32 [N, F], all of it side by side."""
        of_model = [] if self.vectors is None else [self.vectors]
        return np.concatenate([self.text, *self.blocks, self.numbers, *of_model], axis=1)

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self.features, self.words)


def blocks_and_numbers(stages: Stages, names: tuple[str, ...]) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Blocks of the run's item features by name, and statistics of training events alone (`item_statistics`).

    Raises:
      ValueError: no such block.
    """
    if not names:
        return (), item_statistics(stages.split)
    there = {block.name: block.values for block in stages.features.blocks}
    for name in names:
        if name not in there:
            raise ValueError(f"expected blocks of the run's FEATURES ({', '.join(there)}), got {name!r}")
    return tuple(normalised(there[name]) for name in names), item_statistics(stages.split)
