"""FeatureBlock: one vector for each item, and what every block must satisfy."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from plum_jax.corpus.schema import Corpus


class FeatureError(ValueError):
    """A feature block cannot be made or must not be used: names the block, and the item where one item is at fault."""


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureBlock:
    """One kind of feature of all items.

    Attributes:
      name: unique among the blocks of a corpus; also the name of its folder.
      values: float32 [N, D]; rows of items without this feature are zero.
      present: bool [N], whether the item has this feature.
    """

    name: str
    values: np.ndarray
    present: np.ndarray

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise FeatureError(
                f"expected a block name of letters, digits and '_', '-', '.', got {self.name!r}: it names a folder"
            )
        if self.values.ndim != 2 or self.values.dtype != np.float32 or not self.values.shape[1]:
            raise FeatureError(
                f"block {self.name!r}: expected values float32 [N, D] with D > 0, got {self.values.dtype} "
                f"{list(self.values.shape)}"
            )
        if self.present.shape != self.values.shape[:1] or self.present.dtype != bool:
            raise FeatureError(
                f"block {self.name!r}: expected present bool [{len(self.values)}], got {self.present.dtype} "
                f"{list(self.present.shape)}"
            )

    @property
    def dim(self) -> int:
        return int(self.values.shape[1])


def check_block(block: FeatureBlock, corpus: Corpus) -> None:
    """Raises if a block cannot stand for the items of this corpus.

    Raises:
      FeatureError: not one row an item; NaN or infinity; a row that is not zero though absent; no item present; or the
        same vector for all of two or more present items, which tells none from another.
    """
    if len(block.values) != corpus.num_items:
        raise FeatureError(
            f"block {block.name!r} has {len(block.values)} rows, corpus {corpus.name!r} has {corpus.num_items} items"
        )
    for wrong, what in (
        (~np.isfinite(block.values).all(axis=1), "NaN or infinity"),
        (~block.present & block.values.any(axis=1), "values though it is marked absent"),
    ):
        if wrong.any():
            item = int(np.argmax(wrong))
            raise FeatureError(
                f"block {block.name!r}: item {corpus.items['item_id'][item]!r} has {what}, and so have "
                f"{int(wrong.sum()) - 1} more items: correct what the block is made from"
            )
    values = block.values[block.present]
    if not len(values):
        raise FeatureError(f"block {block.name!r} is empty: none of the {corpus.num_items} items has it; leave it out")
    if len(values) > 1 and (values == values[0]).all():
        raise FeatureError(
            f"block {block.name!r} is constant: all {len(values)} items that have it have the same vector, so it tells "
            "none from another; leave it out"
        )


def normalised(values: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; rows of zeros stay so."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(lengths > 0, lengths, 1)).astype(np.float32)
