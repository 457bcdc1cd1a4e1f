"""Categorical features of items, such as genres and brands, as multi-hot vectors."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from plum_jax.corpus.features.block import FeatureBlock, FeatureError, normalised
from plum_jax.corpus.splits import Split


@dataclasses.dataclass(frozen=True)
class Categorical:
    """One dimension for each of the most frequent values, scaled to length 1.

    Attributes:
      fields: columns of items, single values or lists; () = the corpus's item features.
      max_values: most dimensions; of equally frequent values the first in the alphabet is kept.
      name: name of the block.
    """

    fields: tuple[str, ...] = ()
    max_values: int = 256
    name: str = "categorical"

    def compute(self, split: Split) -> FeatureBlock:
        """Items with none of the values kept are absent.

        Raises:
          FeatureError: no such field, or no categorical field at all.
        """
        corpus = split.corpus
        fields = tuple(self.fields) or corpus.item_features
        if not fields:
            raise FeatureError(
                f"block {self.name!r}: corpus {corpus.name!r} has no item features; set `fields` or leave it out"
            )
        for field in fields:
            if field not in corpus.items.columns:
                raise FeatureError(f"block {self.name!r}: items have no {field!r}; they have {corpus.items.columns}")
        having = pl.concat([_values_of(corpus.items, field) for field in fields]).unique()
        kept = (
            having.group_by("field", "value")
            .agg(pl.len().alias("items"))
            .sort(["items", "field", "value"], descending=[True, False, False])
            .head(self.max_values)
            .with_row_index("dimension")
        )
        values = np.zeros((corpus.num_items, max(1, kept.height)), np.float32)
        ones = having.join(kept, on=["field", "value"], how="inner")
        values[ones["item"].to_numpy(), ones["dimension"].to_numpy()] = 1.0
        return FeatureBlock(self.name, normalised(values), np.asarray(values.any(axis=1)))


def _values_of(items: pl.DataFrame, field: str) -> pl.DataFrame:
    """Rows "item", "field", "value" for each value of a column that is not null or empty."""
    column = items.select(pl.int_range(pl.len(), dtype=pl.Int64).alias("item"), pl.col(field).alias("value"))
    if isinstance(items.schema[field], pl.List):
        column = column.explode("value")
    return column.select("item", pl.lit(field).alias("field"), pl.col("value").cast(pl.String)).filter(
        pl.col("value").is_not_null() & (pl.col("value") != "")
    )
