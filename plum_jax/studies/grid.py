"""What a study trains: sizes at FLOP budgets (iso-FLOP curves), or sizes over horizons of tokens."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, get_args

from plum_jax.evaluation.scalable import DataFacts, Scalable
from plum_jax.studies.rules import PowerRule

FlopsConvention = Literal["exact", "6nd"]


@dataclasses.dataclass(frozen=True)
class Need:
    """What one size is to be trained with in one group of a grid, before batches are cut.

    Attributes:
      positions: of all batches, padding and context included: what compute is spent on.
      tokens: positions that are trained on (D).
      flops: by the convention of the grid.
    """

    positions: float
    tokens: float
    flops: float


def flops_per_position(system: Scalable, data: DataFacts, convention: FlopsConvention) -> float:
    """Training FLOPs of one position of a batch of this size of the system, forward and backward.

    "exact" has the projections, router, chosen experts, head, and the scores that a causal mask leaves in a row of
    `data.length`; "6nd" is 6 times all parameters (the activated ones, with experts).
    """
    if convention == "6nd":
        return 6.0 * system.counts(data)["activated"]
    return sum(system.flops_parts(data).values())


@dataclasses.dataclass(frozen=True)
class IsoFlop:
    """Sizes at FLOP budgets. A group is a budget: its cells cost the same and differ in size.

    Attributes:
      budgets: FLOPs. A cell's name has the place of its budget here: add new ones at the end.
      convention: how they are counted: "exact" or "6nd" (`flops_per_position`).
      nearest: at each budget only so many sizes, those nearest (in the ratio of parameters) to `optimum`; None: all.
      optimum: a guess of the best number of parameters at a budget, for `nearest`.
      min_steps: a size that would take fewer steps is left out of the budget.
      max_epochs: a size that would see the data more often is left out of the budget; None: no bound.
    """

    budgets: Sequence[float]
    convention: FlopsConvention = "exact"
    nearest: int | None = None
    optimum: PowerRule | None = None
    min_steps: int = 0
    max_epochs: float | None = None

    letter = "b"

    def __post_init__(self) -> None:
        _require_rising_free(self.budgets, "IsoFlop: budgets")
        if self.convention not in get_args(FlopsConvention):
            raise ValueError(f"IsoFlop: expected a convention of {get_args(FlopsConvention)}, got {self.convention!r}")
        if (self.nearest is None) != (self.optimum is None):
            raise ValueError("IsoFlop: nearest and optimum go together: set both, or neither")

    @property
    def groups(self) -> Sequence[float]:
        """The budgets."""
        return self.budgets

    def need(self, system: Scalable, budget: float, data: DataFacts) -> Need:
        """What spends the budget on this size of the system."""
        positions = budget / flops_per_position(system, data, self.convention)
        return Need(positions, positions * data.fill, budget)

    def chosen(self, parameters: Sequence[int], budget: float) -> list[int]:
        """Places of the sizes that are trained at a budget."""
        places = range(len(parameters))
        if self.nearest is None or self.optimum is None:
            return list(places)
        best = self.optimum(parameters=1.0, tokens=1.0, flops=budget)
        return sorted(sorted(places, key=lambda i: abs(math.log(parameters[i] / best)))[: self.nearest])


@dataclasses.dataclass(frozen=True)
class Horizons:
    """Sizes over horizons. A group is a horizon: its cells see as many tokens, or tokens a parameter.

    Attributes:
      tokens: horizons in tokens trained on.
      tokens_per_parameter: horizons as multiples of the (activated) parameters; one of the two is given.
      min_steps, max_epochs: as in `IsoFlop`.
    """

    tokens: Sequence[float] = ()
    tokens_per_parameter: Sequence[float] = ()
    min_steps: int = 0
    max_epochs: float | None = None

    letter = "t"
    convention: FlopsConvention = dataclasses.field(default="exact", init=False)

    def __post_init__(self) -> None:
        if bool(self.tokens) == bool(self.tokens_per_parameter):
            raise ValueError("Horizons: expected tokens or tokens_per_parameter, one of the two")
        _require_rising_free(self.groups, "Horizons: horizons")

    @property
    def groups(self) -> Sequence[float]:
        """The horizons."""
        return self.tokens or self.tokens_per_parameter

    def need(self, system: Scalable, horizon: float, data: DataFacts) -> Need:
        """What this size of the system takes to see as many tokens."""
        ratio = 1 if self.tokens else system.counts(data)["activated"]
        positions = horizon * ratio / data.fill
        return Need(positions, horizon * ratio, positions * flops_per_position(system, data, "exact"))

    def chosen(self, parameters: Sequence[int], horizon: float) -> list[int]:
        """All sizes, at every horizon."""
        del horizon
        return list(range(len(parameters)))


Grid = IsoFlop | Horizons


def _require_rising_free(values: Sequence[float], what: str) -> None:
    if not values or min(values) <= 0 or len(set(values)) != len(values):
        raise ValueError(f"{what}: expected different numbers above 0, got {tuple(values)}")
