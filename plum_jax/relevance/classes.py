"""Grades of raters as ordered classes, and back: what a distribution over the classes ranks by."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.corpus.sources.judgements import JudgedQueries, Judgements


@dataclasses.dataclass(frozen=True)
class OrderedClasses:
    """Classes from irrelevant to fully relevant, each at a level of the raters' scale.

    Attributes:
      levels: of the grades, rising; a grade is of the class whose level is nearest, of two the lower.
    """

    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        if len(self.levels) < 2 or any(np.diff(self.levels) <= 0):
            raise ValueError(f"expected at least two levels, rising, got {self.levels}")

    def __len__(self) -> int:
        return len(self.levels)

    def read(self, judgements: Judgements) -> JudgedQueries:
        """Reads judgements of this scale.

        Raises:
          CorpusError: a grade outside of the scale, with its file, row and field; and as `Judgements.read`.
        """
        return dataclasses.replace(judgements, grades=(self.levels[0], self.levels[-1])).read()

    def of(self, grades: np.ndarray) -> np.ndarray:
        """int32 [n], the classes of grades float [n].

        Raises:
          ValueError: a grade outside of the scale.
        """
        outside = (grades < self.levels[0]) | (grades > self.levels[-1])
        if outside.any():
            raise ValueError(
                f"expected grades from {self.levels[0]} to {self.levels[-1]}, got {grades[outside.argmax()]}"
            )
        return np.abs(grades[:, None] - np.asarray(self.levels)).argmin(axis=1).astype(np.int32)

    def expected(self, logits: np.ndarray) -> np.ndarray:
        """float32 [n], the mean level under the softmax of logits [n, C]: what items are ranked by."""
        return np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32)) @ jnp.asarray(self.levels, jnp.float32))
