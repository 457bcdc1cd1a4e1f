"""Fraud classifiers on a trunk: on its finished vectors, trained on with it, or without its pre-training."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.event_fields import gap_buckets
from plum_jax.evaluation.metrics.detection import average_precision
from plum_jax.objectives.log_loss import LogLoss
from plum_jax.payments import sequences
from plum_jax.payments.detector import FOLDER
from plum_jax.payments.events import Follow, KnownLabels, PaymentEvents
from plum_jax.payments.fields import gaps
from plum_jax.payments.network import TrunkClassifier, TrunkNetworkConfig, VectorClassifier
from plum_jax.payments.risk import known_numbers
from plum_jax.payments.trunk import Trunk, initial_params
from plum_jax.payments.vectors import scored
from plum_jax.ranking.ranker import table_sizes
from plum_jax.training import saved_params, trainer, training_config
from plum_jax.training.initial import with_values
from plum_jax.training.loop import Evaluator
from plum_jax.training.metrics_log import read_metrics, seconds_of
from plum_jax.training.step import FromHost, Initialiser

Start = Literal["frozen", "fine_tuned", "scratch"]
Columns = Mapping[str, np.ndarray]  # by row of `corpus.events`


@dataclasses.dataclass(frozen=True)
class TrunkDetector:
    """A classifier on a sequence of one dense vector a payment.

    Attributes:
      trunks: name of a directory in `trunks/` -> trunk. Several (of customers and of merchants) have their vectors side
        by side, which is for "frozen" alone.
      start: "frozen": a small Transformer on the trunks' finished vectors; "fine_tuned": a head on the trunk, trained
        with it; "scratch": the same network with random parameters, without any pre-training.
      follow: whose sequences of vectors are classified: with "frozen" any, else the trunk's own.
      network: sizes of the classifier on finished vectors.
      objective: log loss.
      training: steps, optimizer, periods, seed. `select_by` may be "validation/average_precision".
      epochs: passes over the labelled payments instead of `training.steps`; None: those steps.
      least_steps: so many steps at least, where the labels are few.
      batch_size, row_length: rows of a batch and payments of a row.
      curve_sequences: sequences of the validation payments that judge during training.
    """

    trunks: Mapping[str, Trunk]
    start: Start = "frozen"
    follow: Follow = "user"
    network: TrunkNetworkConfig = TrunkNetworkConfig()
    objective: LogLoss = LogLoss()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    epochs: float | None = None
    least_steps: int = 1
    batch_size: int = 16
    row_length: int = 128
    curve_sequences: int = 1000

    def __post_init__(self) -> None:
        if self.start not in ("frozen", "fine_tuned", "scratch"):
            raise ValueError(f"expected start to be 'frozen', 'fine_tuned' or 'scratch', got {self.start!r}")
        if not self.trunks or (self.start != "frozen" and len(self.trunks) > 1):
            raise ValueError(f"expected one trunk, or several for 'frozen', got {list(self.trunks)} for {self.start!r}")
        trunk = next(iter(self.trunks.values()))
        if self.start != "frozen" and trunk.follow != self.follow:
            raise ValueError(
                f"a {self.start!r} classifier reads its trunk's own sequences: expected follow={trunk.follow!r}, got "
                f"{self.follow!r}"
            )

    def fit(self, labels: KnownLabels, directory: epath.Path, name: str) -> FittedTrunkDetector:
        """Trains the trunks where they are not yet, then the classifier."""
        payments, folder = labels.payments, epath.Path(directory) / FOLDER / name
        network, columns, init, trained_on = self._parts(labels, directory)
        learnt = np.zeros(len(payments.time), bool)
        learnt[labels.training_rows] = True
        seed = self.training.seed
        rows = sequences.training_rows(payments, self.follow, self.row_length, seed, f"detector {name}", learnt)
        rows["label"] = np.where(rows["learnt"] > 0, payments.fraud[rows["events"]], 0).astype(np.float32)
        rows["label_weights"] = rows.pop("learnt")
        feed = sequences.feed(rows, self.batch_size, seed, {key: ("events", value) for key, value in columns.items()})
        said = self
        if self.epochs is not None:
            training = self.training.for_passes(self.epochs, feed.rows.steps_per_epoch)
            training = dataclasses.replace(training, steps=max(training.steps, self.least_steps))
            said = dataclasses.replace(self, training=training, epochs=None)
        config = self.network if self.start == "frozen" else next(iter(self.trunks.values())).network
        reader = Reader(network, config, payments, self.follow, columns)
        evaluators = {"validation": reader.curve(self.curve_sequences)} if self.training.evaluation_period else {}
        params = trainer.train(
            said.training,
            directory=folder,
            init_params=init or functools.partial(initial_params, network, next(feed.make_iterator())),
            objective=self.objective.on(network, self.training.mesh.build()),
            feed=feed,
            fingerprints={"labels": labels.fingerprint, "detector": artifact.fingerprint(said), **trained_on},
            evaluators=evaluators,
            tokens_per_step=feed.rows.batch_size * self.row_length,
            description=name,
            described={"detector": said},
        )
        return FittedTrunkDetector(reader, params, seed, folder)

    def _parts(
        self, labels: KnownLabels, directory: epath.Path
    ) -> tuple[nn.Module, Columns, Initialiser | None, dict[str, str]]:
        """The network, the columns that it reads, its first parameters (None: random) and what they hang on."""
        payments, known = labels.payments, {"known": known_numbers(labels)}
        if self.start == "scratch":
            (trunk,) = self.trunks.values()
            fields = trunk.fields.fit(payments, trunk.follow)
            columns = {key: value for key, (_, value) in sequences.read_columns(fields.of(payments)).items()}
            return TrunkClassifier(trunk.build(fields)), columns | known, None, {"fields": fields.fingerprint}
        fitted = {name: trunk.fit(payments, directory, name) for name, trunk in self.trunks.items()}
        trained_on = {f"trunk {name}": trunk.fingerprint for name, trunk in fitted.items()}
        if self.start == "fine_tuned":
            (one,) = fitted.values()
            columns = {key: value for key, (_, value) in sequences.read_columns(one.fields.of(payments)).items()}
            network = TrunkClassifier(one.network)
            return network, columns | known, _beginning_with(network, one.params, columns | known), trained_on
        vectors = [trunk.vectors(payments) for trunk in fitted.values()]
        seconds = gaps(payments.key(self.follow), payments.time)
        gap = np.where(seconds < 0, 0, gap_buckets(seconds)).astype(np.int32)
        columns = {"vectors": vectors[0] if len(vectors) == 1 else np.concatenate(vectors, axis=1), "gap": gap}
        return VectorClassifier(self.network), columns | known, None, trained_on


def _beginning_with(network: TrunkClassifier, trunk: Any, columns: Columns) -> FromHost:
    """Random parameters, but for those of the trunk."""
    one = {key: value[:1][None] for key, value in columns.items()}
    one |= {name: np.ones((1, 1), np.int32) for name in ("decoder_positions", "decoder_segment_ids")}

    def read(key: jax.Array) -> Any:
        boxed = dict(network.init(key, one)["params"])
        boxed["trunk"] = with_values(boxed["trunk"], trunk)
        return boxed

    return FromHost(read)


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """Logits of payments by whole sequences with a bounded cache.

    Attributes:
      network: with its parameters a detector.
      config: of its layers.
      payments: all of them.
      follow: whose sequences.
      columns: what the network reads of each payment.
    """

    network: nn.Module
    config: TrunkNetworkConfig
    payments: PaymentEvents
    follow: Follow
    columns: Columns

    def scores(self, params: Any, rows: np.ndarray) -> np.ndarray:
        """float32 [n]."""
        return scored(self.network, params, self.config, self.payments, self.follow, self.lookup, rows)

    def lookup(self, events: np.ndarray) -> Columns:
        """Columns of a batch, by rows of `corpus.events`."""
        return {name: values[events] for name, values in self.columns.items()}

    def curve(self, at_most: int) -> Evaluator:
        """Average precision of the validation payments of some sequences, evenly spread."""
        rows = self.payments.labelled.rows["validation"]
        key = self.payments.key(self.follow)[rows]
        everybody = np.unique(key)
        some = everybody[np.unique(np.linspace(0, len(everybody) - 1, min(at_most, len(everybody))).astype(int))]
        chosen = rows[np.isin(key, some)]
        fraud = self.payments.fraud[chosen]
        if not 0 < fraud.sum() < len(fraud):
            chosen, fraud = rows, self.payments.fraud[rows]

        def evaluate(params: Any) -> dict[str, float]:
            return {"average_precision": average_precision(fraud, self.scores(params, chosen))}

        return evaluate


@dataclasses.dataclass(frozen=True, eq=False)
class FittedTrunkDetector:
    """A trained `TrunkDetector`.

    Attributes:
      reader: how it scores.
      params: with what (host arrays).
      seed: of its training.
      directory: of the training run.
    """

    reader: Reader
    params: Any
    seed: int
    directory: epath.Path

    @functools.cached_property
    def fingerprint(self) -> str:
        inputs = artifact.read_manifest(self.directory / "params", saved_params.PARAMS_KIND).inputs
        return artifact.fingerprint(artifact.tree_fingerprint(self.params), inputs)

    @property
    def facts(self) -> Mapping[str, Any]:
        log = read_metrics(self.directory)
        steps = max((row["step"] for row in log), default=0)
        return {
            "seed": self.seed,
            **table_sizes(self.params),
            "steps": steps,
            "train_seconds": round(seconds_of(log), 1),
        }

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n], logits of payments by their rows."""
        return self.reader.scores(self.params, rows)
