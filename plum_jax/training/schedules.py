"""Learning rates over time: small dataclasses around Optax, all with a warm-up."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class Constant:
    """`peak` after a linear warm-up of `warmup_steps`. PLUM's scaling study trains at a constant rate (§1.6)."""

    peak: float = 1e-3
    warmup_steps: int = 0

    def build(self, steps: int) -> optax.Schedule:
        """The schedule of a run of `steps`."""
        return optax.linear_schedule(0.0 if self.warmup_steps else self.peak, self.peak, max(1, self.warmup_steps))


@dataclasses.dataclass(frozen=True)
class WarmupLinear:
    """Linear warm-up to `peak`, then a straight line down to `peak * final_fraction` at the last step."""

    peak: float = 1e-3
    warmup_steps: int = 100
    final_fraction: float = 0.0

    def build(self, steps: int) -> optax.Schedule:
        """The schedule of a run of `steps`."""
        warmup = _at_most_half(self.warmup_steps, steps)
        up = optax.linear_schedule(0.0, self.peak, max(1, warmup))
        down = optax.linear_schedule(self.peak, self.peak * self.final_fraction, max(1, steps - warmup))
        return optax.join_schedules([up, down], [warmup])


@dataclasses.dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up to `peak`, then a cosine down to `peak * final_fraction` at the last step."""

    peak: float = 1e-3
    warmup_steps: int = 100
    final_fraction: float = 0.1

    def build(self, steps: int) -> optax.Schedule:
        """The schedule of a run of `steps`."""
        warmup = _at_most_half(self.warmup_steps, steps)
        return optax.warmup_cosine_decay_schedule(
            0.0, self.peak, warmup, max(steps, warmup + 1), self.peak * self.final_fraction
        )


@dataclasses.dataclass(frozen=True)
class WarmupStableDecay:
    """WSD (arXiv 2404.06395): linear warm-up, `peak`, and a decay over the last `decay_steps` of the run.

    Until its decay begins a run has the rates of every longer one: a study trains one trunk (`decay_steps` 0) and lets
    runs of k + decay_steps steps branch off its checkpoint of step k.

    Attributes:
      decay_steps: length of the decay, which begins `decay_steps` before the end; 0 for a trunk.
      final_fraction: of the peak, at the last step.
      decay: a straight line, or 1 - sqrt of the decay's progress (arXiv 2405.18392), which fell lower there.
    """

    peak: float = 1e-3
    warmup_steps: int = 100
    decay_steps: int = 0
    final_fraction: float = 0.0
    decay: Literal["linear", "1-sqrt"] = "1-sqrt"

    def __post_init__(self) -> None:
        if self.decay not in ("linear", "1-sqrt"):
            raise ValueError(f"expected decay to be 'linear' or '1-sqrt', got {self.decay!r}")

    def build(self, steps: int) -> optax.Schedule:
        """The schedule of a run of `steps`.

        Raises:
          ValueError: warm-up and decay do not fit into the run.
        """
        start = steps - self.decay_steps
        if self.warmup_steps > start:
            raise ValueError(
                f"expected warm-up and decay to fit into {steps} steps, got {self.warmup_steps=} {self.decay_steps=}: "
                "train longer, or shorten them"
            )

        def rate(step: jax.typing.ArrayLike) -> jax.Array:
            step = jnp.asarray(step, jnp.float32)
            progress = jnp.clip((step - start) / self.decay_steps, 0.0, 1.0) if self.decay_steps else jnp.float32(0)
            fallen = progress if self.decay == "linear" else jnp.sqrt(progress)
            warm = jnp.minimum(1.0, step / self.warmup_steps) if self.warmup_steps else jnp.float32(1)
            return self.peak * warm * (1.0 - (1.0 - self.final_fraction) * fallen)

        return rate


@dataclasses.dataclass(frozen=True)
class InverseSquareRoot:
    """`peak * sqrt(warmup_steps / step)` after the warm-up, whatever the run's length.

    Attributes:
      warmup: "constant" is at `peak` from the first step (T5's and TIGER's); "linear" climbs to it.
    """

    peak: float = 1e-2
    warmup_steps: int = 10_000
    warmup: Literal["constant", "linear"] = "constant"

    def __post_init__(self) -> None:
        if self.warmup not in ("constant", "linear"):
            raise ValueError(f"expected warmup to be 'constant' or 'linear', got {self.warmup!r}")

    def build(self, steps: int) -> optax.Schedule:
        """The schedule; it does not depend on the run's length."""

        def rate(step: jax.typing.ArrayLike) -> jax.Array:
            decayed = self.peak * jnp.sqrt(self.warmup_steps / jnp.maximum(step, self.warmup_steps))
            return decayed if self.warmup == "constant" else decayed * jnp.minimum(1.0, step / self.warmup_steps)

        return rate


Schedule = Constant | WarmupLinear | WarmupCosine | WarmupStableDecay | InverseSquareRoot


def _at_most_half(warmup_steps: int, steps: int) -> int:
    return min(warmup_steps, max(1, steps // 2))
