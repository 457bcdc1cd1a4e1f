"""What a network may know: codes, features and presence in training of each item, fields of each event."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from plum_jax import artifact
from plum_jax.corpus.event_fields import EventFields
from plum_jax.corpus.schema import ENGAGEMENT
from plum_jax.corpus.splits import Split
from plum_jax.model.item_history import Items
from plum_jax.semantic_ids.table import SidTable
from plum_jax.stages import Stages
from plum_jax.systems.unit_features import side_by_side


@dataclasses.dataclass(frozen=True)
class ItemSizes:
    """What the data decide over.

    Attributes:
      codebook_sizes: W of each level; () where codes are not read.
      num_items: N.
      feature_dim: F.
      field_sizes: buckets of each field of an event.
    """

    codebook_sizes: tuple[int, ...]
    num_items: int
    feature_dim: int
    field_sizes: tuple[int, ...] = ()

    @property
    def num_codes(self) -> int:
        """Of all levels."""
        return sum(self.codebook_sizes)


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """Arrays by item, and by event.

    Attributes:
      table: Semantic IDs; None where they are not read.
      features: float32 [N, F], all blocks of the run side by side, each with rows of length one; F is 0 without any.
      in_training: bool [N], items with a training event.
      events: buckets of the events' fields.
    """

    table: SidTable | None
    features: np.ndarray
    in_training: np.ndarray
    events: EventFields

    @classmethod
    def of(
        cls,
        stages: Stages,
        use_features: bool,
        fields: Sequence[str] = (),
        *,
        use_codes: bool = True,
        use_statistics: bool = False,
    ) -> Known:
        """Those of a run; only what is asked for is made.

        Args:
          stages: of the run.
          use_features: whether items have the run's features.
          fields: of events, by name (`EventFields.of`).
          use_codes: whether items have their Semantic IDs.
          use_statistics: whether items have statistics of their training events (`item_statistics`).

        Raises:
          ValueError: features are asked for, and the run has none; or no such field of events.
        """
        split = stages.split
        blocks = [np.zeros((split.corpus.num_items, 0), np.float32)]
        if use_features:
            if not stages.data.feature_builders:
                raise ValueError(
                    "items are to be read with features, and the run has none: set FEATURES, or ITEM_FEATURES = False"
                )
            blocks.append(side_by_side(stages.features))
        if use_statistics:
            blocks.append(item_statistics(split))
        features, events = np.concatenate(blocks, axis=1), EventFields.of(split, fields)
        return cls(stages.table if use_codes else None, features, split.item_popularity > 0, events)

    @property
    def sid_table(self) -> SidTable:
        """For systems that read codes."""
        assert self.table is not None, "made with use_codes"
        return self.table

    @property
    def codes(self) -> np.ndarray:
        """int32 [N, L]; L is 0 where no codes are read."""
        return np.zeros((len(self.features), 0), np.int32) if self.table is None else self.table.codes

    @property
    def sizes(self) -> ItemSizes:
        """What they decide of a network."""
        codebook_sizes = () if self.table is None else self.table.codebook_sizes
        num_items, feature_dim = self.features.shape
        return ItemSizes(codebook_sizes, num_items, feature_dim, self.events.sizes)

    @functools.cached_property
    def fingerprint(self) -> str:
        sids = "none" if self.table is None else self.table.fingerprint
        return artifact.fingerprint(sids, self.features, self.in_training, self.events.fingerprint)

    def columns(self, what: str, items: str) -> dict[str, tuple[str, np.ndarray]]:
        """The further columns of a feed for the items that stand in one of its columns."""
        values = {"known": self.in_training, "codes": self.codes, "features": self.features}
        return {f"{what}_{name}": (items, array) for name, array in values.items()}

    def items(self, ids: np.ndarray) -> Items:
        """Of some items."""
        arrays = (self.in_training[ids], self.codes[ids], self.features[ids])
        return Items(jnp.asarray(ids, jnp.int32), *(jnp.asarray(array) for array in arrays))


def item_statistics(split: Split) -> np.ndarray:
    """float32 [N, 1 + numeric engagement columns] from training events alone: log(1 + events), and the mean of each
    column, shrunk to the mean of all by ten events of it; each with mean 0 and variance 1 over the items.
    """
    events, count = split.training_events(), split.item_popularity
    columns = [np.log1p(count)]
    for name in (column for column, dtype in ENGAGEMENT.items() if column in events.columns and dtype.is_numeric()):
        there = events.drop_nulls(name)
        item, values = there["item"].to_numpy(), there[name].to_numpy().astype(np.float64)
        if len(values):
            total, seen = (np.bincount(item, weights=w, minlength=len(count)) for w in (values, np.ones_like(values)))
            columns.append((total + 10 * values.mean()) / (seen + 10))
    stacked = np.stack(columns, axis=1)
    scale = np.maximum(stacked.std(axis=0), 1e-6) * np.sqrt(stacked.shape[1])
    return ((stacked - stacked.mean(axis=0)) / scale).astype(np.float32)
