"""Optimizers and schedules: small dataclasses around Optax, so that a run's manifest can say what was used."""

from __future__ import annotations

import dataclasses
from typing import Any

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
class WarmupCosine:
    """Linear warm-up to `peak`, then a cosine down to `peak * final_fraction` at the last step."""

    peak: float = 1e-3
    warmup_steps: int = 100
    final_fraction: float = 0.1

    def build(self, steps: int) -> optax.Schedule:
        """The schedule of a run of `steps`."""
        warmup = min(self.warmup_steps, max(1, steps // 2))
        return optax.warmup_cosine_decay_schedule(
            0.0, self.peak, warmup, max(steps, warmup + 1), self.peak * self.final_fraction
        )


@dataclasses.dataclass(frozen=True)
class InverseSquareRoot:
    """`peak` until `warmup_steps`, then `peak * sqrt(warmup_steps / step)` (T5's and TIGER's)."""

    peak: float = 1e-2
    warmup_steps: int = 10_000

    def build(self, steps: int) -> optax.Schedule:
        """The schedule; it does not depend on the run's length."""
        return lambda step: self.peak * jnp.sqrt(self.warmup_steps / jnp.maximum(step, self.warmup_steps))


Schedule = Constant | WarmupCosine | InverseSquareRoot


def _decayed(params: Any) -> Any:
    # Norm scales and biases are not decayed; embeddings and matrices are.
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not any(getattr(k, "key", "") in ("scale", "bias") for k in path), params
    )


@dataclasses.dataclass(frozen=True)
class AdamW:
    """AdamW (arXiv 1711.05101) with gradient clipping by global norm; norm scales and biases are not decayed."""

    schedule: Schedule = WarmupCosine()
    b1: float = 0.9
    b2: float = 0.98
    weight_decay: float = 0.1
    clip_norm: float = 1.0

    def build(self, steps: int) -> optax.GradientTransformation:
        """The transformation for a run of `steps`."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adamw(
                self.schedule.build(steps), b1=self.b1, b2=self.b2, weight_decay=self.weight_decay, mask=_decayed
            ),
        )


@dataclasses.dataclass(frozen=True)
class Adafactor:
    """Adafactor (arXiv 1804.04235), T5X's default: sublinear memory."""

    schedule: Schedule = InverseSquareRoot()
    weight_decay: float = 0.0
    clip_norm: float = 1.0

    def build(self, steps: int) -> optax.GradientTransformation:
        """The transformation for a run of `steps`."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adafactor(
                self.schedule.build(steps),
                weight_decay_rate=self.weight_decay or None,
                weight_decay_mask=_decayed if self.weight_decay else None,
            ),
        )


Optimizer = AdamW | Adafactor
