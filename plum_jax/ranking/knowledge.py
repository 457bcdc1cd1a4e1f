"""What another model knows of a user before an event, as inputs of a ranker (LUM, arXiv 2502.08309, step 3)."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from plum_jax.stages import Stages


@dataclasses.dataclass(frozen=True, eq=False)
class KnowledgeTables:
    """Answers of a user model to N conditions before every event, and its vectors of items.

    Attributes:
      queries: float16 or float32 [E, N, D] by row of `corpus.events`: unit vectors o_q of what the user would take
        under each condition, from the events before that row alone.
      items: float32 [I, D]: unit vectors e_i.
      fingerprint: of both, and of what made them.
      condition_names: N names.
      fields_read: columns of items and events that the model has read; a ranker that asks for one of them would be
        told the answer.
    """

    queries: np.ndarray
    items: np.ndarray
    fingerprint: str
    condition_names: tuple[str, ...]
    fields_read: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, (_, width) = self.queries.shape, self.items.shape
        if len(shape) != 3 or shape[1:] != (len(self.condition_names), width):
            raise ValueError(
                f"expected queries [events, {len(self.condition_names)} conditions, {width}] for items "
                f"{self.items.shape} and conditions {self.condition_names}, got {shape}"
            )

    def require_for(self, num_events: int, num_items: int) -> None:
        """Raises `ValueError` where they are of another corpus."""
        found = len(self.queries), len(self.items)
        if found != (num_events, num_items):
            raise ValueError(
                f"expected knowledge of {num_events} events and {num_items} items, got {found[0]} and {found[1]}: it "
                "is of another corpus; make it from the stages that are ranked"
            )


class Knowledge(Protocol):
    """A frozen dataclass, bound in gin, that trains a user model or reads a trained one."""

    def read(self, stages: Stages) -> KnowledgeTables:
        """Tables by rows of `stages.corpus`; a query of a row must know nothing of that row or a later one."""
