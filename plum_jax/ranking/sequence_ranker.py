"""A ranker that is trained on whole histories, each event's label once a pass: the end-to-end rival of LUM's step 3."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import Split
from plum_jax.evaluation.metrics.classification import classification_metrics
from plum_jax.feeds.array_batches import ArrayBatches
from plum_jax.feeds.item_columns import ItemColumns
from plum_jax.objectives.log_loss import LogLoss
from plum_jax.ranking.event_columns import EventColumns
from plum_jax.ranking.event_rows import rows_of_all, training_rows
from plum_jax.ranking.labels import Label, LabelledEvents
from plum_jax.ranking.networks.sequence import HstuConfig, SequenceConfig
from plum_jax.ranking.ranker import CURVE, logits_of, trained_facts
from plum_jax.stages import Stages
from plum_jax.training import trainer, training_config
from plum_jax.training.loop import Evaluator

_ROWS = 8  # packed rows of one device call


@dataclasses.dataclass(frozen=True)
class SequenceRanker:
    """HSTU, or SASRec with a candidate, by `network`.

    Attributes:
      network: what reads a history.
      objective: log loss.
      training: steps, optimizer, periods, seed.
      history_length: events of a window; at an evaluation at least half as many before each event, where there are.
      batch_size, row_length: rows of a batch and events of a row.
      epochs: passes over the training events instead of `training.steps`; None: those steps.
      request_fields, category: as in `BehaviourRanker`.
      curve_rows: rows of validation for the curves and for choosing the best checkpoint.
    """

    network: SequenceConfig = HstuConfig()
    objective: LogLoss = LogLoss()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    history_length: int = 256
    batch_size: int = 8
    row_length: int = 256
    epochs: float | None = None
    request_fields: tuple[str, ...] | None = None
    category: str | None = None
    curve_rows: int = 1024

    def fit(self, stages: Stages, label: Label, name: str) -> FittedSequenceRanker:
        """Trains on every labelled training event, or goes on, or reads what was trained."""
        events, columns = label.of(stages.split), self.columns(stages.split, label)
        feed = self.feed(columns, events)
        said = training_config.in_steps(self, feed.rows.steps_per_epoch)
        network, directory = self.network.module(columns.sizes, columns.categories), stages.directory / "rankers" / name
        reader = Reader(network, columns, self.history_length)
        evaluators = {"validation": reader.curve(events, self.curve_rows)} if self.training.evaluation_period else {}
        params = trainer.train(
            said.training,
            directory=directory,
            init_params=functools.partial(initial_params, network, next(feed.make_iterator())),
            objective=self.objective.on(network, self.training.mesh.build()),
            feed=feed,
            fingerprints={
                "split": stages.split.fingerprint,
                "columns": columns.fingerprint,
                "label": artifact.fingerprint(label),
                "system": artifact.fingerprint(said),
            },
            evaluators=evaluators,
            tokens_per_step=feed.rows.batch_size * self.row_length,
            description=name,
            described={"system": said, "label": label},
        )
        return FittedSequenceRanker(reader, params, self.training.seed, epath.Path(directory))

    def columns(self, split: Split, label: Label) -> EventColumns:
        """What is read of an event; behaviours are events of the same row, and none is looked up."""
        return EventColumns.where_said(
            split, 1, behaviour_fields=(label.field,), request_fields=self.request_fields, category=self.category
        )

    def feed(self, columns: EventColumns, events: LabelledEvents) -> ItemColumns:
        """Packed rows of training events, reshuffled each epoch."""
        rows = training_rows(
            columns.split, self.history_length, self.row_length, self.training.seed, used_by="a sequence ranker"
        )
        labels = events.label[rows["events"]]
        known = (rows["decoder_segment_ids"] > 0) & ~np.isnan(labels)
        rows |= {"label": np.where(known, labels, 0), "label_weights": known.astype(np.float32)}
        batches = ArrayBatches(rows, min(self.batch_size, len(known)), self.training.seed)
        return ItemColumns(batches, {name: ("events", values) for name, values in columns.by_event.items()})


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """Logits of events by whole histories.

    Attributes:
      network: with its parameters a ranker.
      columns: what is known of events.
      history_length: of the windows.
    """

    network: nn.Module
    columns: EventColumns
    history_length: int

    @functools.cached_property
    def rows(self) -> Mapping[str, np.ndarray]:
        """All events of the corpus, packed."""
        return rows_of_all(self.columns.split, self.history_length)

    def scores(self, params: Any, wanted: np.ndarray) -> np.ndarray:
        """float32 [n], of events by their rows of the corpus; the rows that hold none of them are not read."""
        params, rows = jax.device_put(params), self.rows
        asked = np.zeros(self.columns.split.corpus.num_events, bool)
        asked[wanted] = True
        answering = rows["answered"] & asked[rows["events"]]
        packed = np.flatnonzero(answering.any(axis=1))
        found = np.full(len(asked), np.nan, np.float32)
        for start in range(0, len(packed), _ROWS):
            some = np.resize(packed[start : start + _ROWS], _ROWS)  # one shape for all
            batch = {name: rows[name][some] for name in ("events", "decoder_segment_ids", "decoder_positions")}
            batch |= {name: values[batch["events"]] for name, values in self.columns.by_event.items()}
            logits = np.asarray(logits_of(self.network, params, batch))
            here = answering[some]
            found[batch["events"][here]] = logits[here]
        return found[wanted]

    def curve(self, events: LabelledEvents, at_most: int) -> Evaluator:
        """AUC, GAUC and log loss of validation events: those of some packed rows, evenly spread."""
        wanted = np.zeros(self.columns.split.corpus.num_events, bool)
        wanted[events.rows["validation"]] = True
        holding = np.flatnonzero((self.rows["answered"] & wanted[self.rows["events"]]).any(axis=1))
        some = holding[np.unique(np.linspace(0, len(holding) - 1, min(at_most, len(holding)), dtype=int))]
        here = self.rows["answered"][some] & wanted[self.rows["events"][some]]
        rows = np.sort(self.rows["events"][some][here])
        user = self.columns.split.corpus.events["user"].to_numpy()[rows]

        def evaluate(params: Any) -> dict[str, float]:
            found = classification_metrics(events.label[rows], self.scores(params, rows), user)
            return {name: found[name] for name in CURVE if name in found}

        return evaluate


@dataclasses.dataclass(frozen=True, eq=False)
class FittedSequenceRanker:
    """A trained `SequenceRanker`.

    Attributes:
      reader: how it scores.
      params: with what (host arrays).
      seed: of its training.
      directory: of the training run, whose log knows the seconds.
    """

    reader: Reader
    params: Any
    seed: int
    directory: epath.Path

    @functools.cached_property
    def fingerprint(self) -> str:
        parts = (self.reader.columns.fingerprint, self.reader.history_length)
        return artifact.fingerprint(artifact.tree_fingerprint(self.params), *parts)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"seed": self.seed, **trained_facts(self.params, self.directory)}

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n], logits of events by their rows."""
        return self.reader.scores(self.params, rows)


def initial_params(network: nn.Module, batch: Mapping[str, np.ndarray], key: jax.Array) -> Any:
    """Random parameters with their logical axes."""
    return network.init(key, {name: values[:1] for name, values in batch.items()})["params"]
