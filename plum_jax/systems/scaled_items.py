"""What systems over items have alike where a study scales them; their rows are items or events."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from plum_jax.corpus.splits import Split
from plum_jax.evaluation.scalable import DataFacts, Prepared
from plum_jax.stages import Data, Source
from plum_jax.systems.scored_items import evaluation_users
from plum_jax.training.trainer import Trunk
from plum_jax.training.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class ScaledItems:
    """The part of `evaluation.scalable.Scalable` that no system says in a way of its own.

    Attributes:
      data: corpus and split, and what else the system reads.
      system: with `training`, `row_length` and `batch_size`.
      ks: cut-offs of recall.
    """

    data: Data
    system: Any
    ks: Sequence[int] = (5, 10)

    @property
    def training(self) -> TrainingConfig:
        """Optimizer and schedule."""
        return self.system.training

    @property
    def length(self) -> int:
        """Positions of a training row."""
        return self.system.row_length

    @property
    def source(self) -> Source:
        """Of the events."""
        return self.data.source

    @property
    def own_config(self) -> Mapping[str, Any]:
        """All that decides over one cell besides the data."""
        return {"system": self.system}

    def prepared(
        self,
        split: Split,
        trained: np.ndarray,
        history_length: int,
        max_users: int | None,
        loss_is_of_items: bool = True,
        **of_items: Any,
    ) -> Prepared:
        """What was made for all cells.

        Args:
          split: the corpus and its folds.
          trained: bool [rows, length], positions with a loss weight in one pass over the data.
          history_length: events that are read of a test user at most.
          max_users: test users to judge on, evenly spread; None: all.
          loss_is_of_items: see `Prepared`.
          **of_items: what `DataFacts` says of items besides their number.
        """
        test = evaluation_users(split, "test", max_users)
        data = DataFacts(
            vocab_size=split.corpus.num_items,
            length=self.length,
            unique_tokens=int(trained.sum()),
            fill=float(trained.mean()),
            evaluation_users=len(test),
            prompt_tokens=float(np.minimum(np.diff(test.history_offsets), history_length).mean()),
            **({"sid_levels": 1} | of_items),
        )
        return Prepared(data, test.user, loss_is_of_items)


def branch(at: tuple[epath.Path, int] | None) -> Trunk | None:
    """The run and step that a cell's training branches off, whose schedule and seconds may differ."""
    return None if at is None else Trunk(*at, may_differ=("system",))
