"""What an interest module is: behaviours and a candidate in, what the user wants of the candidate out."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import flax.linen as nn
import jax

from plum_jax.ranking.event_columns import Sizes

SumAndWeight = tuple[jax.Array, jax.Array]


class Extras(NamedTuple):
    """What is known of T behaviours beside their vectors.

    Attributes:
      same_category: bool [B, T], whether the behaviour's category is the candidate's.
      fields: int32 [B, T, F], buckets of `Sizes.behaviour`.
      drawn: [B, T, D], vectors of items that are drawn for each behaviour; None where nothing is learnt.
    """

    same_category: jax.Array
    fields: jax.Array
    drawn: jax.Array | None


class Interest(NamedTuple):
    """Attributes:
    vector: [B, K].
    auxiliary_loss: sum and weight of a further loss; None: there is none.
    """

    vector: jax.Array
    auxiliary_loss: SumAndWeight | None = None


class InterestConfig(Protocol):
    """A frozen dataclass, bound in gin: `din.Din`, `dien.Dien`, `sim.Sim`, `twin.Twin`.

    Its module is called with `(candidate [B, D], behaviours [B, T, D], mask bool [B, T], extras)` and returns an
    `Interest`. Behaviours stand in order of time, the oldest first, real ones on the left.
    """

    @property
    def needs_drawn(self) -> bool:
        """Whether training draws an item for each behaviour."""

    @property
    def needs_categories(self) -> bool:
        """Whether items must have categories."""

    def module(self, sizes: Sizes, name: str) -> nn.Module:
        """The module for behaviours of these fields, of that name inside the network."""
