"""A trunk: self-supervised pre-training on sequences of payments, and one dense vector of each payment."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.objectives.next_fields import NextFields
from plum_jax.payments import sequences
from plum_jax.payments.events import Follow, PaymentEvents
from plum_jax.payments.fields import BUCKETS, Fields, FieldsConfig
from plum_jax.payments.network import NextPayment, PaymentTrunk, TrunkNetworkConfig
from plum_jax.payments.vectors import written_vectors
from plum_jax.ranking.ranker import table_sizes
from plum_jax.training import trainer, training_config
from plum_jax.training.metrics_log import read_metrics, seconds_of

FORETOLD = ("amount", "gap", "hour")


@dataclasses.dataclass(frozen=True)
class Trunk:
    """Next-payment prediction over the sequences of customers ("user") or of merchants ("item").

    It learns from all payments of the training fold and from no label.

    Attributes:
      follow: whose sequences.
      fields: what is read of a payment.
      network: sizes.
      objective: of the next payment's fields.
      training: steps, optimizer, periods, seed.
      epochs: passes over the training payments instead of `training.steps`; None: those steps.
      batch_size, row_length: rows of a batch and payments of a row.
    """

    follow: Follow = "user"
    fields: FieldsConfig = FieldsConfig()
    network: TrunkNetworkConfig = TrunkNetworkConfig()
    objective: NextFields = NextFields()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    epochs: float | None = None
    batch_size: int = 16
    row_length: int = 128

    def __post_init__(self) -> None:
        if self.follow not in ("user", "item"):
            raise ValueError(f"expected follow to be 'user' (cards) or 'item' (merchants), got {self.follow!r}")

    def build(self, fields: Fields) -> PaymentTrunk:
        """The network for these fields."""
        return PaymentTrunk(self.network, fields.bucket_sizes, fields.counterparty_rows)

    def fit(self, payments: PaymentEvents, directory: epath.PathLike, name: str) -> FittedTrunk:
        """Trains, or goes on, or reads what was trained, in `directory/trunks/<name>`."""
        fields = self.fields.fit(payments, self.follow)
        encoded, folder = fields.of(payments), epath.Path(directory) / "trunks" / name
        rows = sequences.training_rows(payments, self.follow, self.row_length, self.training.seed, f"trunk {name}")
        columns = sequences.read_columns(encoded) | sequences.next_columns(encoded, FORETOLD)
        feed = sequences.feed(rows, self.batch_size, self.training.seed, columns)
        said = training_config.in_steps(self, feed.rows.steps_per_epoch)
        sizes = tuple((field, fields.bucket_sizes[BUCKETS.index(field)]) for field in FORETOLD)
        network = NextPayment(self.build(fields), sizes)
        params = trainer.train(
            said.training,
            directory=folder,
            init_params=functools.partial(initial_params, network, next(feed.make_iterator())),
            objective=self.objective.on(network, self.training.mesh.build()),
            feed=feed,
            fingerprints={
                "payments": payments.fingerprint,
                "fields": fields.fingerprint,
                "trunk": artifact.fingerprint(said),
            },
            tokens_per_step=feed.rows.batch_size * self.row_length,
            description=f"trunk {name}",
            described={"trunk": said},
        )
        return FittedTrunk(name, self.build(fields), params["trunk"], fields, self.training.seed, folder)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedTrunk:
    """A trained `Trunk`.

    Attributes:
      name: of its directories.
      network, params: what reads payments (host arrays).
      fields: how payments are read.
      seed: of its training.
      directory: of the training run.
    """

    name: str
    network: PaymentTrunk
    params: Any
    fields: Fields
    seed: int
    directory: epath.Path

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(artifact.tree_fingerprint(self.params), self.fields.fingerprint)

    @property
    def facts(self) -> Mapping[str, Any]:
        """Seed, sizes and seconds of the pre-training, and its last losses in nats a payment."""
        log = read_metrics(self.directory)
        last = {name: value for name, value in log[-1].items() if name.endswith("loss")}
        return {"seed": self.seed, **table_sizes(self.params), "seconds": round(seconds_of(log), 1), **last}

    def vectors(self, payments: PaymentEvents) -> np.ndarray:
        """float16 [E, D], a dense vector of each payment from those before it in its sequence; made once, in shards, as
        the artefact `vectors/<name>` of the run.
        """
        return written_vectors(
            self.network,
            self.params,
            self.fields,
            payments,
            directory=self.directory.parent.parent / "vectors" / self.name,
            inputs={"payments": payments.split.corpus.fingerprint, "trunk": self.fingerprint},
        )


def initial_params(network: Any, batch: Mapping[str, np.ndarray], key: jax.Array) -> Any:
    """Random parameters with their logical axes."""
    return network.init(key, {name: values[:1] for name, values in batch.items()})["params"]
