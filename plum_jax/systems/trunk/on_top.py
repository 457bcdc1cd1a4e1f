"""The trunk as a subgraph: a ranker of one label of events that trains on top of it, frozen or not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import Split
from plum_jax.feeds.array_batches import ArrayBatches
from plum_jax.feeds.item_columns import ItemColumns
from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.masks import PackedCausal
from plum_jax.objectives.log_loss import LogLoss
from plum_jax.ranking.event_rows import training_rows
from plum_jax.ranking.labels import Label, LabelledEvents
from plum_jax.ranking.networks.perceptron import Perceptron
from plum_jax.ranking.networks.sequence import SequenceOutput
from plum_jax.ranking.sequence_ranker import FittedSequenceRanker, Reader
from plum_jax.stages import Stages
from plum_jax.systems.trunk.known import TrunkKnown
from plum_jax.systems.trunk.network import TrunkNetwork
from plum_jax.systems.trunk.system import FittedTrunk, Trunk
from plum_jax.training import trainer, training_config
from plum_jax.training.initial import warm_started
from plum_jax.training.parameter_groups import ParameterGroups

TRUNK = "trunk"  # where its parameters lie among the ranker's


class OnTop(nn.Module):
    """A logit at every event of packed rows: layers over the user at the event's request, the item, and their product.

    The user at an event is the trunk's state behind the event before it, which has read this event's request. At a
    first event nobody is known, and the item stands alone.

    Attributes:
      below: the trunk, whose states and vectors are read.
      mlp_dims: widths of the layers before the logit.
      frozen: nothing is learnt of the trunk, which then has no dropout either.
      attention: the kernel.
    """

    below: TrunkNetwork
    mlp_dims: tuple[int, ...]
    frozen: bool
    attention: AttentionFunction = EinsumAttention()

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], deterministic: bool = True) -> SequenceOutput:
        quiet = deterministic or self.frozen
        of = self.below
        sizes = (of.post_sizes, of.request_sizes, of.auxiliary_sizes)
        network = TrunkNetwork(of.config, of.items, *sizes, self.attention, name=TRUNK)
        vectors = network.vectors(quiet)
        segments, first = batch["decoder_segment_ids"], batch["decoder_positions"] == 0
        following = jnp.pad(batch["request"][:, 1:], ((0, 0), (0, 1), (0, 0)))
        last = jnp.pad(first[:, 1:], ((0, 0), (0, 1)), constant_values=True)
        read = {
            "decoder_input_tokens": batch["item"],
            "post": batch["post"],
            "request": jnp.where(last[..., None], 0, following),
            "decoder_positions": batch["decoder_positions"],
        }
        states, _ = network.represented(vectors, read, PackedCausal(segments), deterministic=quiet)
        user = jnp.where(first[..., None], 0.0, jnp.pad(states[:, :-1], ((0, 0), (1, 0), (0, 0))))
        item = jnp.take(vectors, batch["item"], axis=0)
        if self.frozen:
            user, item = jax.lax.stop_gradient(user), jax.lax.stop_gradient(item)
        item = item * item.shape[-1] ** 0.5  # rows of a table are small
        read_by_layers = jnp.concatenate([user, item, user * item], axis=-1).reshape(-1, 3 * user.shape[-1])
        dropout = self.below.config.transformer.dropout_rate
        x = Perceptron(self.mlp_dims, dropout, name="mlp")(read_by_layers, deterministic)
        return SequenceOutput(nn.Dense(1, name="logit")(x).reshape(segments.shape))


@dataclasses.dataclass(frozen=True, eq=False)
class TrunkColumns:
    """What `OnTop` reads of events, as `sequence_ranker.Reader` looks it up.

    Attributes:
      split: events and folds.
      known: fields of events, items.
    """

    split: Split
    known: TrunkKnown

    @functools.cached_property
    def by_event(self) -> dict[str, np.ndarray]:
        """Columns [E, ...] of every event."""
        item = self.split.corpus.events["item"].to_numpy().astype(np.int32)
        return {"item": item, "post": self.known.post.buckets, "request": self.known.request.buckets}

    @property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self.split.fingerprint, self.known.fingerprint)


@dataclasses.dataclass(frozen=True)
class TrunkRanker:
    """A downstream classifier of events on top of the trunk (`ranking.protocol.Ranker`).

    Attributes:
      trunk: what it stands on, trained where it is not yet.
      name: of the trunk's directory in `systems/`.
      frozen: the trunk stays as it is; else it learns on with the ranker.
      pretrained: whether it begins with the trained trunk; False: with random parameters, the rival that has seen the
        labels alone.
      mlp_dims: widths of the layers on top.
      training: steps, optimizer, periods, seed.
      epochs: passes over the training events instead of `training.steps`; None: those steps.
      batch_size: rows of a batch, each of the trunk's row_length.
      curve_rows: rows of validation for the curves and for choosing the best checkpoint.
    """

    trunk: Trunk
    name: str = "trunk"
    frozen: bool = True
    pretrained: bool = True
    mlp_dims: tuple[int, ...] = (64,)
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    epochs: float | None = None
    batch_size: int = 16
    curve_rows: int = 512

    def __post_init__(self) -> None:
        if self.frozen and not self.pretrained:
            raise ValueError("a frozen trunk that was not trained says nothing: set frozen=False, or pretrained=True")

    def fit(self, stages: Stages, label: Label, name: str) -> FittedSequenceRanker:
        """Trains on every labelled training event, or goes on, or reads what was trained."""
        trained = self.trunk.fit(stages, self.name) if self.pretrained else None
        return self.fit_on(trained, stages, label, name)

    def fit_on(self, trained: FittedTrunk | None, stages: Stages, label: Label, name: str) -> FittedSequenceRanker:
        """The same on a trunk that is there already, of another run perhaps; None: on random parameters."""
        events, known = label.of(stages.split), self.trunk.known(stages)
        columns, feed = TrunkColumns(stages.split, known), self.feed(stages.split, known, events)
        said = training_config.in_steps(self, feed.rows.steps_per_epoch)
        network = OnTop(self.trunk.network_of(known), tuple(self.mlp_dims), self.frozen)
        init: Any = functools.partial(_initial, network, next(feed.make_iterator()))
        inherited = {}
        if trained is not None:
            init, inherited = warm_started(jax.jit(init), {TRUNK: trained.params}), {TRUNK: trained.fingerprint}
        # The reader looks events up by `split` and `by_event` alone, which these columns have.
        reader: Any = Reader(network, columns, self.trunk.row_length)  # type: ignore[arg-type]
        evaluators = {"validation": reader.curve(events, self.curve_rows)} if self.training.evaluation_period else {}
        params = trainer.train(
            said._training(),
            directory=stages.directory / "rankers" / name,
            init_params=init,
            objective=LogLoss().on(network, self.training.mesh.build()),
            feed=feed,
            fingerprints={
                "columns": columns.fingerprint,
                "label": artifact.fingerprint(label),
                "system": artifact.fingerprint(said),
                **inherited,
            },
            evaluators=evaluators,
            tokens_per_step=feed.rows.batch_size * self.trunk.row_length,
            description=name,
            described={"system": said, "label": label},
        )
        return FittedSequenceRanker(reader, params, self.training.seed, epath.Path(stages.directory / "rankers" / name))

    def feed(self, split: Split, known: TrunkKnown, events: LabelledEvents) -> ItemColumns:
        """Packed rows of training events, reshuffled each epoch."""
        length = self.trunk.row_length
        rows = training_rows(split, length, length, self.training.seed, used_by="a ranker on the trunk")
        labels = events.label[rows["events"]]
        counts = (rows["decoder_segment_ids"] > 0) & ~np.isnan(labels)
        rows |= {"label": np.where(counts, labels, 0), "label_weights": counts.astype(np.float32)}
        batches = ArrayBatches(rows, min(self.batch_size, len(counts)), self.training.seed)
        by_event = TrunkColumns(split, known).by_event
        return ItemColumns(batches, {name: ("events", values) for name, values in by_event.items()})

    def _training(self) -> training_config.TrainingConfig:
        """With the trunk out of the optimizer where it is frozen."""
        if not self.frozen:
            return self.training
        groups = self.training.optimizer.groups
        rules = ParameterGroups(((TRUNK, 0.0), *groups.rules), groups.frozen_rows, groups.sets)
        return dataclasses.replace(self.training, optimizer=dataclasses.replace(self.training.optimizer, groups=rules))


def _initial(network: OnTop, batch: Mapping[str, np.ndarray], key: jax.Array) -> Any:
    """Random parameters with their logical axes."""
    return network.init(key, {name: values[:1] for name, values in batch.items()})["params"]
