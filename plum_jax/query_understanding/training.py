"""A network of queries trained by distributions over classes, and asked in batches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import scipy.sparse
from etils import epath

from plum_jax import artifact
from plum_jax.feeds.array_batches import ArrayBatches
from plum_jax.objectives.class_shares import ClassShares
from plum_jax.ranking.ranker import trained_facts
from plum_jax.training import trainer
from plum_jax.training.initial import warm_started
from plum_jax.training.step import Initialiser
from plum_jax.training.training_config import TrainingConfig, in_steps

Columns = Mapping[str, np.ndarray]
_ASKED_AT_ONCE = 512


@dataclasses.dataclass(frozen=True)
class Schooling:
    """How a classifier is trained.

    Attributes:
      training: steps, optimizer, periods, seed.
      epochs: passes over the rows instead of `training.steps`; None: those steps.
      batch_size: rows of a batch.
    """

    training: TrainingConfig = TrainingConfig()
    epochs: float | None = None
    batch_size: int = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Lesson:
    """What a classifier is trained on, R rows.

    Attributes:
      columns: what the network reads, [R, ...] each.
      shares: [R, C], what it should say.
      weight: float32 [R].
      fingerprint: of all that they come from.
    """

    columns: Columns
    shares: np.ndarray
    weight: np.ndarray
    fingerprint: str


def of_conversions(columns: Columns, conversions: scipy.sparse.csr_array, fingerprint: str) -> Lesson:
    """Rows whose shares are those of their conversions float32 [R, C], weighed by the square root of their number: what
    is frequent counts for more, and does not fill a batch alone.
    """
    number = np.asarray(conversions.sum(axis=1), np.float32).ravel()
    shares = conversions.toarray() / number[:, None]
    return Lesson(columns, shares.astype(np.float16), np.sqrt(number), fingerprint)


def trained(
    network: Any,
    schooling: Schooling,
    lesson: Lesson,
    directory: epath.Path,
    start: Mapping[str, Any] | None = None,
    described: Any = None,
) -> tuple[Any, dict[str, Any]]:
    """Trains, or goes on, or reads what was trained: parameters (host arrays), and facts for `results.jsonl`.

    Args:
      network: `(batch, deterministic) -> logits`.
      schooling: how.
      lesson: on what.
      directory: of the run.
      start: top-level names of parameters that are not random -> their trees, host arrays.
      described: what a message names where the directory has a run of other settings.
    """
    columns = {**lesson.columns, "shares": lesson.shares, "weight": lesson.weight}
    feed = ArrayBatches(columns, min(schooling.batch_size, len(lesson.weight)), schooling.training.seed)
    training = in_steps(schooling, feed.steps_per_epoch).training
    some = {name: values[:1] for name, values in lesson.columns.items()}
    params = trainer.train(
        training,
        directory=directory,
        init_params=_initial(network, some, start or {}),
        objective=ClassShares().on(network, training.mesh.build()),
        feed=feed,
        fingerprints={"lesson": lesson.fingerprint, "schooling": artifact.fingerprint(schooling, described)},
        tokens_per_step=feed.batch_size,
        description=directory.name,
        described={"classifier": described},
    )
    return params, {"steps": training.steps, **trained_facts(params, directory)}


def _initial(network: Any, some: Columns, start: Mapping[str, Any]) -> Initialiser:
    """Random parameters, but for those of `start`."""

    def random(key: jax.Array) -> Any:
        return network.init(key, some)["params"]

    return warm_started(jax.jit(random), start) if start else random


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkClassifier:
    """A network that was trained, as a `FittedClassifier`.

    Attributes:
      network, params: with what it says (host arrays).
      read: queries to its columns, all of one shape but for the rows.
      facts: for `results.jsonl`.
    """

    network: Any
    params: Any
    read: Callable[[Sequence[str]], Columns]
    facts: Mapping[str, Any]

    @functools.cached_property
    def _on_device(self) -> Any:
        return jax.device_put(self.params)

    def shares(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, C], the softmax."""
        size = min(_ASKED_AT_ONCE, max(1, len(texts)))
        found = [np.zeros((0, self.network.num_classes), np.float32)]
        for start in range(0, len(texts), size):
            some = list(texts[start : start + size])
            # Filled up: a batch of another size would be compiled anew.
            columns = self.read(some + some[:1] * (size - len(some)))
            found.append(np.asarray(_softmax(self.network, self._on_device, columns))[: len(some)])
        return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=0)
def _softmax(network: Any, params: Any, columns: Columns) -> jax.Array:
    return jax.nn.softmax(network.apply({"params": params}, columns), axis=-1)
