"""What the network may know: codes, features and presence in training of each item, fields of each event."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from plum_jax import artifact
from plum_jax.corpus.event_fields import EventFields
from plum_jax.model.item_history import Items
from plum_jax.semantic_ids.table import SidTable
from plum_jax.stages import Stages
from plum_jax.systems.item_history.counts import ItemSizes
from plum_jax.systems.unit_features import side_by_side


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """Arrays by item, and by event.

    Attributes:
      table: Semantic IDs.
      features: float32 [N, F], all blocks of the run side by side, each with rows of length one; F is 0 without any.
      in_training: bool [N], items with a training event.
      events: buckets of the events' fields.
    """

    table: SidTable
    features: np.ndarray
    in_training: np.ndarray
    events: EventFields

    @classmethod
    def of(cls, stages: Stages, use_features: bool, fields: Sequence[str] = ()) -> Known:
        """Those of a run.

        Raises:
          ValueError: features are asked for, and the run has none; or no such field of events.
        """
        features = np.zeros((stages.split.corpus.num_items, 0), np.float32)
        if use_features:
            if not stages.data.feature_builders:
                raise ValueError(
                    "items are to be read with features, and the run has none: set FEATURES, or ITEM_FEATURES = False"
                )
            features = side_by_side(stages.features)
        return cls(stages.table, features, stages.split.item_popularity > 0, EventFields.of(stages.split, fields))

    @property
    def sizes(self) -> ItemSizes:
        """What they decide of a network."""
        num_items, feature_dim = self.features.shape
        return ItemSizes(self.table.codebook_sizes, num_items, feature_dim, self.events.sizes)

    @property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self.table.fingerprint, self.features, self.in_training, self.events.fingerprint)

    def columns(self, what: str, items: str) -> dict[str, tuple[str, np.ndarray]]:
        """The further columns of a feed for the items that stand in one of its columns."""
        values = {"known": self.in_training, "codes": self.table.codes, "features": self.features}
        return {f"{what}_{name}": (items, array) for name, array in values.items()}

    def items(self, ids: np.ndarray) -> Items:
        """Of some items."""
        arrays = (self.in_training[ids], self.table.codes[ids], self.features[ids])
        return Items(jnp.asarray(ids, jnp.int32), *(jnp.asarray(array) for array in arrays))
