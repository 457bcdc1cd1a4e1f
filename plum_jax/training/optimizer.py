"""Optimizers: small dataclasses around Optax, so that a run's manifest can say what was used.

All clip by global norm first; then come the optimizer's direction, width transfer, weight decay and the schedule, and
`ParameterGroups` around it all.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import optax
from optax import contrib

from plum_jax.training import width_transfer
from plum_jax.training.parameter_groups import ParameterGroups
from plum_jax.training.parameter_roles import is_decayed, map_with_path, role_of
from plum_jax.training.schedules import InverseSquareRoot, Schedule, WarmupCosine
from plum_jax.training.width_transfer import WidthTransfer


@dataclasses.dataclass(frozen=True)
class AdamW:
    """AdamW (arXiv 1711.05101); norm scales and biases are not decayed.

    Attributes:
      schedule: of the learning rate.
      b1, b2: decay of the first and the second moment.
      weight_decay: times the learning rate.
      clip_norm: of all trained gradients together; None does not clip.
      momentum_dtype: of the first moment as it is kept ("bfloat16" saves 2 bytes a parameter); the parameter's if None.
      width_transfer: learning rates found at a smaller width.
      groups: learning rates by parameter, and what is frozen.
    """

    schedule: Schedule = WarmupCosine()
    b1: float = 0.9
    b2: float = 0.98
    weight_decay: float = 0.1
    clip_norm: float | None = 1.0
    momentum_dtype: str | None = None
    width_transfer: WidthTransfer | None = None
    groups: ParameterGroups = ParameterGroups()

    def build(self, steps: int) -> optax.GradientTransformation:
        """The transformation for a run of `steps`."""
        adam = optax.scale_by_adam(self.b1, self.b2, mu_dtype=self.momentum_dtype)
        return _assembled(self, adam, width_transfer.ADAM, steps)


@dataclasses.dataclass(frozen=True)
class Muon:
    """Muon (Jordan et al., 2024) on the matrices between activations, AdamW on tables, router, norms and biases.

    Updates of matrices are orthogonalised and scaled to the root mean square that Adam's have (arXiv 2502.16982), so
    that one learning rate and one weight decay serve both halves, and those of AdamW are a good start. Each layer, each
    expert, gate, up, and each head's query, key and value is a matrix of its own (arXiv 2605.08933 compares heads
    apart and together); an attention's output is one [N*H, D].

    Attributes:
      momentum: of Nesterov's method.
      update_rms: root mean square of a matrix's update at learning rate 1.
      newton_schulz_steps: iterations of the orthogonalisation.
      b1, b2: of AdamW.
      schedule, weight_decay, clip_norm, momentum_dtype, width_transfer, groups: as in `AdamW`.
    """

    schedule: Schedule = WarmupCosine()
    momentum: float = 0.95
    update_rms: float = 0.2
    newton_schulz_steps: int = 5
    b1: float = 0.9
    b2: float = 0.98
    weight_decay: float = 0.1
    clip_norm: float | None = 1.0
    momentum_dtype: str | None = None
    width_transfer: WidthTransfer | None = None
    groups: ParameterGroups = ParameterGroups()

    def build(self, steps: int) -> optax.GradientTransformation:
        """The transformation for a run of `steps`."""
        orthogonalised = optax.chain(
            contrib.scale_by_muon(
                beta=self.momentum,
                ns_steps=self.newton_schulz_steps,
                mu_dtype=self.momentum_dtype,
                weight_dimension_numbers=lambda updates: map_with_path(lambda path, _: _matrix(path), updates),
            ),
            optax.stateless(lambda updates, _: map_with_path(self._with_update_rms, updates)),
        )
        adam = optax.scale_by_adam(self.b1, self.b2, mu_dtype=self.momentum_dtype)
        return _assembled(
            self, optax.partition({"muon": orthogonalised, "adam": adam}, _labels), width_transfer.MUON, steps
        )

    def _with_update_rms(self, path: str, update: jax.Array) -> jax.Array:
        # An orthogonal [n, m] has entries of root mean square max(n, m) ** -0.5.
        matrix = _matrix(path)
        assert matrix is not None
        rows, columns = (
            math.prod(update.shape[axis] for axis in ((axes,) if isinstance(axes, int) else axes)) for axes in matrix
        )
        return update * (self.update_rms * max(rows, columns) ** 0.5)


@dataclasses.dataclass(frozen=True)
class Adafactor:
    """Adafactor (arXiv 1804.04235), T5X's default: the second moments of a matrix are kept as a row and a column.

    Rates are relative to the root mean square of each parameter; the decay is not multiplied by the rate (as in T5X).
    Attributes as in `AdamW`.
    """

    schedule: Schedule = InverseSquareRoot()
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    width_transfer: WidthTransfer | None = None
    groups: ParameterGroups = ParameterGroups()

    def build(self, steps: int) -> optax.GradientTransformation:
        """The transformation for a run of `steps`."""
        parts = [_clip(self.clip_norm), optax.adafactor(self.schedule.build(steps))]
        if self.width_transfer:
            parts.append(self.width_transfer.scale(width_transfer.ADAFACTOR))
        if self.weight_decay:  # negative: Adafactor's updates have their sign already
            parts.append(optax.add_decayed_weights(-self.weight_decay, mask=_decayed))
        return self.groups.apply(optax.chain(*parts))


Optimizer = AdamW | Adafactor | Muon


def _assembled(
    config: AdamW | Muon, direction: optax.GradientTransformation, exponents: width_transfer.Exponents, steps: int
) -> optax.GradientTransformation:
    parts = [direction]
    if config.width_transfer:
        parts.append(config.width_transfer.scale(exponents))
    parts.append(optax.add_decayed_weights(config.weight_decay, mask=_decayed))
    parts.append(optax.scale_by_learning_rate(config.schedule.build(steps)))
    return config.groups.apply(optax.chain(_clip(config.clip_norm), optax.chain(*parts)))


def _clip(norm: float | None) -> optax.GradientTransformation:
    return optax.identity() if norm is None else optax.clip_by_global_norm(norm)


def _decayed(params: Any) -> Any:
    return map_with_path(lambda path, _: is_decayed(path), params)


def _matrix(path: str) -> contrib.MuonDimensionNumbers | None:
    role = role_of(path)
    return role.matrix if role else None


def _labels(params: Any) -> Any:
    return map_with_path(lambda path, _: "muon" if _matrix(path) else "adam", params)
