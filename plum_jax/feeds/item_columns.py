"""Columns of items beside the tokens of a batch: features of inputs and targets, and how often a target is one."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from plum_jax.feeds.batches import ArrayBatches


@dataclasses.dataclass(frozen=True, eq=False)
class ItemColumns:
    """A feed of item histories whose batches also have what is known of the items, looked up batch by batch.

    Added: "input_features" and "target_features" float32 [B, T, F], "target_log_q" float32 [B, T].

    Attributes:
      rows: batches with the columns of `feeds.packing`, tokens being item indexes.
      features: float32 [N, F].
      log_q: float32 [N], log of each item's share of the targets.
    """

    rows: ArrayBatches
    features: np.ndarray
    log_q: np.ndarray

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
        batch, columns = next(self._rows), self._columns
        inputs, targets = batch["decoder_input_tokens"], batch["decoder_target_tokens"]
        return batch | {
            "input_features": columns.features[inputs],
            "target_features": columns.features[targets],
            "target_log_q": columns.log_q[targets],
        }
