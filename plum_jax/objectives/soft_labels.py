"""Cross-entropy of classes against labels and against a teacher's distribution (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from plum_jax.objectives.kernels import with_attention_on

Sums = tuple[jax.Array, jax.Array, dict]


@dataclasses.dataclass(frozen=True)
class SoftLabels:
    """hard * CE(label, student) where a row has a label, soft * T^2 KL(teacher_T || student_T) where it has none.

    teacher_T and student_T are softmaxes of logits divided by the temperature T; T^2 keeps the gradient's size when T
    changes (Hinton et al., §2).

    Attributes:
      temperature: T.
      hard, soft: weights of the two.
    """

    temperature: float = 1.0
    hard: float = 1.0
    soft: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0 or min(self.hard, self.soft) < 0:
            raise ValueError(f"expected a positive temperature and weights of at least 0, got {self}")

    def on(self, network: Any, mesh: Mesh) -> OfClasses:
        """The loss of a network of `(batch, deterministic)` that gives logits [B, C]."""
        return OfClasses(with_attention_on(network, mesh), self)


@dataclasses.dataclass(frozen=True)
class OfClasses:
    """`SoftLabels` of one network."""

    network: Any
    objective: SoftLabels

    def __call__(self, params: Mapping, batch: Mapping[str, jax.Array], rng: jax.Array | None) -> Sums:
        """Sums over the rows of a batch with "label" int32 [B], below 0: none, and, where there are such, a teacher's
        logits "teacher" float32 [B, C], read of these rows alone; `rng` None: no dropout.

        Metrics: "cross_entropy" and "accuracy" of rows with a label, "divergence" from the teacher of the others.
        """
        rngs = None if rng is None else {"dropout": rng}
        logits = self.network.apply({"params": params}, batch, deterministic=rng is None, rngs=rngs)
        logits, label, c = logits.astype(jnp.float32), batch["label"], self.objective
        known = (label >= 0).astype(jnp.float32)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(label, 0)[:, None], axis=1)[:, 0]
        cross_entropy, count = -jnp.sum(chosen * known), jnp.sum(known)
        metrics = {
            "cross_entropy": (cross_entropy, count),
            "accuracy": (jnp.sum((jnp.argmax(logits, axis=1) == label) * known), count),
        }
        rows, loss = jnp.float32(label.shape[0]), c.hard * cross_entropy
        if "teacher" in batch:
            divergence = divergence_of(batch["teacher"] / c.temperature, logits / c.temperature)
            divergence = jnp.sum(divergence * (1 - known))
            loss += c.soft * c.temperature**2 * divergence
            metrics["divergence"] = (divergence, rows - count)
        return loss, rows, metrics


def divergence_of(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """[B], KL(softmax(teacher) || softmax(student)) of logits [B, C]."""
    expected, found = jax.nn.log_softmax(teacher), jax.nn.log_softmax(student)
    return jnp.sum(jnp.exp(expected) * (expected - found), axis=-1)
