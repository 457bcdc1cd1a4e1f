"""M6-Rec as a ranker of one label of events: a text each, answered at [EOS]."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.evaluation.metrics.classification import classification_metrics
from plum_jax.feeds.array_batches import ArrayBatches
from plum_jax.ranking.labels import Label, LabelledEvents
from plum_jax.ranking.ranker import trained_facts
from plum_jax.retrieval.recommend import select_rows
from plum_jax.stages import Stages
from plum_jax.systems.m6rec.late import KeptSegments
from plum_jax.systems.m6rec.losses import ClassLoss
from plum_jax.systems.m6rec.network import Heads, M6Network
from plum_jax.systems.m6rec.pretraining import Pretrained, Pretraining, directory_of
from plum_jax.systems.m6rec.rows import TextRows
from plum_jax.systems.m6rec.serving import BLOCK, Serving
from plum_jax.systems.m6rec.trunk import Form
from plum_jax.systems.m6rec.tuning import Tuning
from plum_jax.training import trainer, training_config
from plum_jax.training.loop import Evaluator

_TIMED_ROWS, _TIMES = 32, 5


@dataclasses.dataclass(frozen=True)
class M6Ranker:
    """CTR by the state at [EOS].

    Attributes:
      pretraining: the trunk that it begins with, and the texts.
      heads: exits; soft prompts are the tuning's.
      form: of the trunk, where it is to be another than it was pre-trained in; None: the same.
      tuning: what learns.
      training: steps, optimizer, periods, seed.
      epochs: passes over the labelled training events instead of `training.steps`; None: those steps.
      batch_size: events.
      serving: how it scores; rankers that differ in this alone are trained once.
      curve_events: validation events for the curves and for choosing the best checkpoint, evenly spread.
    """

    pretraining: Pretraining = Pretraining()
    heads: Heads = Heads()
    form: Form | None = None
    tuning: Tuning = Tuning()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    epochs: float | None = 1.0
    batch_size: int = 64
    serving: Serving = Serving()
    curve_events: int = 2_000

    def fit(self, stages: Stages, label: Label, name: str) -> FittedM6Ranker:
        """Trains on every labelled training event, or goes on, or reads what was trained."""
        events = label.of(stages.split)
        trunk = self.pretraining.fit(stages, events)
        network, rows = self.network(trunk), events.rows["training"]
        trunk.writer.check_learnt(rows)
        arrays = {**offers(trunk, rows).columns(), "label": events.label[rows]}
        batches = ArrayBatches(arrays, min(self.batch_size, len(rows)), self.training.seed)
        trained = dataclasses.replace(self, serving=Serving())
        said = training_config.in_steps(trained, batches.steps_per_epoch)
        training = dataclasses.replace(said.training, optimizer=self.tuning.optimizer(said.training.optimizer))
        evaluators = {}
        if self.training.evaluation_period or self.training.select_by:
            evaluators["validation"] = curve(network, trunk, events, self.curve_events)
        inputs = {
            "trunk": trunk.fingerprint,
            "label": artifact.fingerprint(label, rows, events.label[rows]),
            "system": artifact.fingerprint(said),
        }
        directory = directory_of(stages, "ranker", *inputs.values())
        params = trainer.train(
            training,
            directory=directory,
            init_params=trunk.initial(network, "__call__", next(batches.make_iterator())),
            objective=ClassLoss(network),
            feed=batches,
            fingerprints=inputs,
            evaluators=evaluators,
            tokens_per_step=batches.batch_size * self.pretraining.length,
            description=name,
            described={"system": said, "label": label},
        )
        return FittedM6Ranker(self, network, params, trunk, len(rows), directory)

    def network(self, trunk: Pretrained) -> M6Network:
        """Of this trunk's sizes."""
        return M6Network(
            self.tuning.decoder(trunk.start.decoder),
            trunk.start.vocab_size,
            self.pretraining.form if self.form is None else self.form,
            self.tuning.heads(self.heads),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class FittedM6Ranker:
    """A trained `M6Ranker`.

    Attributes:
      config: of it.
      network, params: with what it scores (host arrays, as they were trained).
      trunk: texts and tokens.
      examples: labelled training events.
      directory: of the training run, whose log knows the seconds.
    """

    config: M6Ranker
    network: M6Network
    params: Any
    trunk: Pretrained
    examples: int
    directory: epath.Path

    @functools.cached_property
    def fingerprint(self) -> str:
        weights = artifact.tree_fingerprint(self.params)
        return artifact.fingerprint(weights, self.trunk.writer.fingerprint, self.config.serving)

    @functools.cached_property
    def served(self) -> Any:
        """Parameters as `serving` keeps them."""
        return self.config.serving.params(self.params)

    @property
    def facts(self) -> Mapping[str, Any]:
        """With "milliseconds", the median time of 32 rows of validation events, and the "bytes" of the weights."""
        rows = offers(self.trunk, self.trunk.writer.events.rows["validation"][:_TIMED_ROWS])
        milliseconds, layers = self._milliseconds(rows)
        return {
            "seed": self.config.training.seed,
            "examples": self.examples,
            **trained_facts(self.params, self.directory),
            "tuned_parameters": self.config.tuning.tuned_parameters(self.params),
            "bytes": self.config.serving.size_in_bytes(self.params),
            "milliseconds": milliseconds,
            "layers": layers,
        }

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n], logits of events by their rows."""
        return self._scored(offers(self.trunk, rows), BLOCK)[0]

    @functools.cached_property
    def _kept(self) -> KeptSegments:
        return KeptSegments(self.network, self.served)

    def _scored(self, rows: TextRows, block: int) -> tuple[np.ndarray, float]:
        """Logits, and the mean number of layers that a row whose segments are known goes through."""
        if self.config.serving.keep_segments:
            below = self.network.form.split_layers(self.network.config.num_layers)
            return self._kept.scores(rows, block), float(self.network.config.num_layers - below)
        return self.config.serving.scores(self.network, self.served, rows, block)

    def _milliseconds(self, rows: TextRows) -> tuple[float, float]:
        took, layers = [], 0.0
        for _ in range(1 + _TIMES):
            began = time.perf_counter()
            _, layers = self._scored(rows, _TIMED_ROWS)
            took.append(1000 * (time.perf_counter() - began))
        return round(statistics.median(took[1:]), 2), round(layers, 2)


def offers(trunk: Pretrained, rows: np.ndarray) -> TextRows:
    """Events by their rows as candidates."""
    return trunk.tokens.rows([trunk.writer.offer(int(row)) for row in rows])


def curve(network: M6Network, trunk: Pretrained, events: LabelledEvents, at_most: int) -> Evaluator:
    """AUC, GAUC and log loss of some validation events."""
    rows = events.rows["validation"]
    rows = rows[select_rows(len(rows), at_most)]
    user = trunk.writer.corpus.events["user"].to_numpy()[rows]
    texts = offers(trunk, rows)

    def evaluate(params: Any) -> dict[str, float]:
        found = classification_metrics(events.label[rows], Serving().scores(network, params, texts)[0], user)
        return {name: found[name] for name in ("auc", "gauc", "log_loss") if name in found}

    return evaluate
