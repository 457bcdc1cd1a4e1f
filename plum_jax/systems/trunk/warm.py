"""Warm starts for new titles without training: a trained trunk whose new items have rows of the items like them."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.stages import Stages
from plum_jax.systems.trunk.inheriting import ROWS, NewRows, inherited_rows
from plum_jax.systems.trunk.items import TrunkItems
from plum_jax.systems.trunk.system import FittedTrunk, Trunk


@dataclasses.dataclass(frozen=True)
class WarmRows:
    """A trunk as it is but for the items that were not in training: each has an own row as `Inherited` would give it,
    and counts as one of the least age, so that the row is read.

    Attributes:
      trunk: the model; it is trained where it is not yet.
      name: of its directory in `systems/`.
      new_rows, noise: as in `Inherited`.
    """

    trunk: Trunk
    name: str = "trunk"
    new_rows: NewRows = "metadata"
    noise: float = 0.0

    def fit(self, stages: Stages, name: str) -> FittedTrunk:
        """There is nothing to train but the trunk."""
        fitted = self.trunk.fit(stages, self.name)
        known, (folder, ids) = fitted.reader.known, ROWS
        items, there = known.items, known.items.in_training
        old_rows = np.where(there, np.arange(len(there)), -1)
        seed = self.trunk.training.seed
        rows = inherited_rows(fitted.params[folder][ids], old_rows, items.features, self.new_rows, self.noise, seed)
        params = {**fitted.params, folder: {**fitted.params[folder], ids: rows}}
        known = dataclasses.replace(known, items=TrunkItems(items.features, np.where(there, items.ages, 1)))
        return dataclasses.replace(fitted, reader=self.trunk.reader(stages.split, known), params=params)
