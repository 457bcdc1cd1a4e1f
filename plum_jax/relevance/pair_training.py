"""Training on pairs: what a batch is, and a training in phases, between which layers may go."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.feeds.array_batches import CompletedIterator
from plum_jax.feeds.batches import Batch
from plum_jax.feeds.length_batches import LengthBatches
from plum_jax.objectives.soft_labels import SoftLabels
from plum_jax.relevance.cross_encoder import CrossReader
from plum_jax.relevance.pairs import Pairs
from plum_jax.relevance.pruning import GradualPruning, depth_of, importance, without_layer
from plum_jax.relevance.reader import PairReader
from plum_jax.training import trainer
from plum_jax.training.step import FromHost
from plum_jax.training.training_config import TrainingConfig

_MEASURED_ON = 256  # pairs that the layers' importance is measured on


@dataclasses.dataclass(frozen=True, eq=False)
class PairFeed:
    """Batches of a reader's columns with "label" int32 [B] and, where there is a teacher, "teacher" float32 [B, C].

    Attributes:
      reader: of the pairs.
      pairs: judged and unlabelled ones.
      taught: float32 [n, C], a teacher's logits of the unlabelled ones; None: no teacher.
      rows: batches of their numbers.
    """

    reader: PairReader
    pairs: Pairs
    taught: np.ndarray | None
    rows: LengthBatches

    @classmethod
    def of(cls, reader: PairReader, pairs: Pairs, taught: np.ndarray | None, batch_size: int, seed: int) -> PairFeed:
        """All pairs in a new order each epoch."""
        rows = LengthBatches(reader.lengths(reader.queries, pairs), min(batch_size, len(pairs)), seed)
        return cls(reader, pairs, taught, rows)

    def make_iterator(self) -> CompletedIterator:
        """A fresh iterator at the start; it never ends."""
        return CompletedIterator(self.rows, lambda _, chosen: self.batch(chosen["row"]))

    def batch(self, rows: np.ndarray) -> Batch:
        """Of these pairs."""
        pairs = self.pairs.of(rows)
        found = {**self.reader.columns(self.reader.queries, pairs), "label": pairs.label}
        return found if self.taught is None else found | {"teacher": self.taught[rows]}


@dataclasses.dataclass(frozen=True, eq=False)
class PairTraining:
    """A training.

    Attributes:
      config: steps of all phases together, optimizer, seed.
      objective: the loss.
      feed: pairs.
      directory: gets a folder a phase.
      inputs: fingerprints of what is trained, and on what.
      name: on the progress bar.
    """

    config: TrainingConfig
    objective: SoftLabels
    feed: PairFeed
    directory: epath.Path
    inputs: Mapping[str, str]
    name: str

    def whole(self, start: Any = None) -> Any:
        """Parameters (host arrays), trained in one phase; `start` None: from the reader's initial ones."""
        return self._phase("whole", self.feed.reader.network, self.config.steps, start)

    def pruned(self, pruning: GradualPruning, start: Any = None) -> tuple[Any, list[int]]:
        """Parameters of a cross-encoder, trained in the phases of `pruning`, and which layers went, by their numbers at
        the start, in order.
        """
        reader = self.feed.reader
        assert isinstance(reader, CrossReader), "RelevanceModel prunes cross-encoders alone"
        layers = reader.layers if start is None else depth_of(start)
        left, params = list(range(layers)), start
        gone: list[int] = []
        for depth, steps in pruning.phases(layers, self.config.steps):
            if depth < len(left):
                batch = self.feed.batch(np.arange(min(len(self.feed.pairs), _MEASURED_ON)))
                number = int(importance(reader.of_depth(len(left)), params, batch).argmin())
                params = without_layer(params, number)
                gone.append(left.pop(number))
            params = self._phase(f"depth_{depth}", reader.of_depth(depth), steps, params)
        return params, gone

    def _phase(self, folder: str, network: Any, steps: int, start: Any) -> Any:
        made_of = {} if start is None else {"start": artifact.tree_fingerprint(start)}
        config = dataclasses.replace(self.config, steps=steps)
        return trainer.train(
            config,
            directory=self.directory / folder,
            init_params=FromHost(functools.partial(self.feed.reader.initial, network, start)),
            objective=self.objective.on(network, config.mesh.build()),
            feed=self.feed,
            fingerprints={**self.inputs, **made_of},
            tokens_per_step=self.feed.rows.batch_size,
            description=f"{self.name}, {folder}",
        )
