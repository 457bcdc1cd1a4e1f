"""Columns of items beside the tokens of a batch: what is known of the items that it names, looked up batch by batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from plum_jax.feeds.batches import ArrayBatches

DRAWN = "drawn_items"


@dataclasses.dataclass(frozen=True)
class DrawnItems:
    """Items that are drawn uniformly for each row of a batch, as negatives.

    Columns "drawn_items" int32 [B, k] and "drawn_log_q" float32 [B, k], the log-probability of each draw.

    Attributes:
      a_row: k.
      items: int32 [n], what is drawn from.
      seed: of the draws; those of a batch follow from its number.
    """

    a_row: int
    items: np.ndarray
    seed: int


@dataclasses.dataclass(frozen=True, eq=False)
class ItemColumns:
    """A feed of item histories whose batches have further columns.

    Attributes:
      rows: batches with the columns of `feeds.packing`, tokens being item indexes.
      columns: name of a further column -> the column [B, ...] of the items that it is of, and its values [N, ...] by
        item.
      drawn: items that are drawn for each row.
    """

    rows: ArrayBatches
    columns: Mapping[str, tuple[str, np.ndarray]]
    drawn: DrawnItems | None = None

    def make_iterator(self) -> ItemColumnsIterator:
        """A fresh iterator at the start; it never ends."""
        return ItemColumnsIterator(self)


class ItemColumnsIterator:
    """Iterator over `ItemColumns`; its state is that of the rows."""

    def __init__(self, columns: ItemColumns) -> None:
        self._columns = columns
        self._rows = columns.rows.make_iterator()

    def get_state(self) -> dict[str, Any]:
        """Where the rows are."""
        return self._rows.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where `get_state` was taken."""
        self._rows.set_state(state)

    def __iter__(self) -> ItemColumnsIterator:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        number, batch = self._rows.get_state()["batch"], dict(next(self._rows))
        drawn = self._columns.drawn
        if drawn is not None:
            rng = np.random.default_rng([drawn.seed, number])
            shape = (len(batch["decoder_positions"]), drawn.a_row)
            batch[DRAWN] = drawn.items[rng.integers(0, len(drawn.items), shape)].astype(np.int32)
            batch["drawn_log_q"] = np.full(shape, -np.log(len(drawn.items)), np.float32)
        return batch | {name: values[batch[items]] for name, (items, values) in self._columns.columns.items()}
