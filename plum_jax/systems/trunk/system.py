"""The trunk as a system: trained on the next n items and auxiliary targets, it ranks by its next item."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.features.fields_read import fields_read
from plum_jax.corpus.splits import EvaluationSet, Split
from plum_jax.evaluation.system import Ranking
from plum_jax.feeds.item_columns import ItemColumns
from plum_jax.feeds.windows import Windows
from plum_jax.model.counts import train_flops_parts
from plum_jax.objectives.kernels import with_attention_on
from plum_jax.objectives.next_items import NextItems
from plum_jax.ranking.labels import Label
from plum_jax.stages import Stages
from plum_jax.systems.known import ItemSizes
from plum_jax.systems.scored_items import curve_on, evaluation_users
from plum_jax.systems.trunk.feed import drawn_a_row, trunk_feed
from plum_jax.systems.trunk.inheriting import Inherited
from plum_jax.systems.trunk.items import Age
from plum_jax.systems.trunk.known import TrunkFields, TrunkKnown
from plum_jax.systems.trunk.network import TrunkConfig, TrunkNetwork
from plum_jax.systems.trunk.reading import TrunkReader
from plum_jax.training import trainer, training_config
from plum_jax.training.loop import Evaluator
from plum_jax.training.metrics_log import read_metrics, seconds_of


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A behaviour trunk (Netflix's foundation model): one model of sequences of events, for many applications.

    Attributes:
      network: sizes and choices.
      further_weight: of each of the further tokens in the loss (`objectives.next_items.NextItems`).
      training: steps, optimizer, periods, seed.
      fields: what is read of events, and what is predicted beside the item.
      windows: of histories that train; `windows.length` is also what of a history ranking reads.
      use_features: whether items have the run's features.
      age: unit of an item's age, which weighs its own row against its features.
      counted: a label that a target must have, e.g. a rating of 4 and more, for a trunk that is fine-tuned to what is
        liked; None: every event is a target.
      inherited: the trained trunk whose parameters it begins with; None: random ones.
      batch_size, row_length: rows of a batch and events of a row; several windows share one.
      num_drawn: negatives of a batch; as many as there are items and more: the full softmax.
      epochs: passes over the rows that `fit` trains for, instead of `training.steps`; None: those steps.
      curve_users: validation users for the curves and for choosing the best checkpoint.
    """

    network: TrunkConfig = TrunkConfig()
    further_weight: float = 1.0
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    fields: TrunkFields = TrunkFields()
    windows: Windows = Windows()
    use_features: bool = True
    age: Age = "events"
    counted: Label | None = None
    inherited: Inherited | None = None
    batch_size: int = 16
    row_length: int = 100
    num_drawn: int = 16_384
    epochs: float | None = None
    curve_users: int = 2000

    def __post_init__(self) -> None:
        if self.network.item_mix == "age" and not self.use_features:
            raise ValueError("item_mix 'age' mixes an item's row with its features: use_features, or item_mix 'sum'")

    def fit(self, stages: Stages, name: str) -> FittedTrunk:
        """Trains on every training event, or goes on, or reads what was trained."""
        split, known = stages.split, self.known(stages)
        said = self
        if self.epochs is not None:
            said = training_config.in_steps(self, self.feed(split, known).rows.steps_per_epoch)
        reader, directory = self.reader(split, known), stages.directory / "systems" / name
        evaluators = {"validation": self._curve(reader, split)} if self.training.evaluation_period else {}
        params = said.train(stages, known, directory, evaluators=evaluators, description=name)
        return FittedTrunk(said, reader, params, said._facts(reader, params), epath.Path(directory))

    def train(
        self,
        stages: Stages,
        known: TrunkKnown,
        directory: epath.PathLike,
        *,
        evaluators: Mapping[str, Evaluator] | None = None,
        trunk: trainer.Trunk | None = None,
        description: str = "trunk",
    ) -> Any:
        """Parameters after the last step, or after the best one; the arguments are those of `trainer.train`."""
        network, split = self.network_of(known), stages.split
        init: Any = functools.partial(initial_trunk, network)
        inputs = {"split": split.fingerprint, "items": known.fingerprint, "system": artifact.fingerprint(self)}
        if self.inherited is not None:
            init, inputs["inherited"] = self.inherited.initialiser(init, stages, known.items.features)
        objective = NextItems(self.further_weight, tuple(self.fields.auxiliary.values()))
        positions = self.batch_size * self.row_length
        return trainer.train(
            self.training,
            directory=directory,
            init_params=init,
            objective=objective.on(network, self.training.mesh.build()),
            feed=self.feed(split, known),
            fingerprints=inputs,
            evaluators=evaluators,
            step_flops=positions * sum(self.flops_parts(known.sizes).values()),
            tokens_per_step=positions,
            trunk=trunk,
            description=description,
            described={"system": self},
        )

    def known(self, stages: Stages) -> TrunkKnown:
        """What is read of a run."""
        return TrunkKnown.of(stages, self.fields, self.use_features, self.age)

    def fields_read(self, stages: Stages) -> tuple[str, ...]:
        """Columns of items and events that it reads, for those who must not be told of one."""
        blocks = stages.data.feature_builders if self.use_features else ()
        fields = self.fields
        return tuple(sorted({*fields_read(blocks, stages.corpus), *fields.post, *fields.request, *fields.auxiliary}))

    def network_of(self, known: TrunkKnown) -> TrunkNetwork:
        """The network for these items and fields."""
        return TrunkNetwork(self.network, known.items, known.post.sizes, known.request.sizes, known.auxiliary.sizes)

    def reader(self, split: Split, known: TrunkKnown) -> TrunkReader:
        """How it is asked."""
        item = split.corpus.events["item"].to_numpy().astype(np.int32)
        network = with_attention_on(self.network_of(known), self.training.mesh.build())
        return TrunkReader(network, known, item, self.windows.length)

    def feed(self, split: Split, known: TrunkKnown) -> ItemColumns:
        """Packed rows of training events, reshuffled each epoch."""
        return trunk_feed(
            split,
            known,
            self.windows,
            tokens=self.network.tokens,
            row_length=self.row_length,
            batch_size=self.batch_size,
            num_drawn=self.num_drawn,
            seed=self.training.seed,
            counted=None if self.counted is None else self.counted.of(split).label == 1,
        )

    def flops_parts(self, sizes: ItemSizes) -> dict[str, float]:
        """Model FLOPs of one position in training, by part (`model.counts.train_flops_parts`)."""
        c, width = self.network, self.network.transformer.d_model
        parts = train_flops_parts(c.transformer, 0, (self.row_length + 1) / 2)
        positions = self.batch_size * self.row_length
        drawn = drawn_a_row(self.num_drawn, sizes.num_items, self.batch_size) * self.batch_size
        per_batch = sizes.num_items * sizes.feature_dim * width / positions
        heads = (c.tokens - 1) * 2 * width**2 + (width * width * (1 + c.transformer.num_layers)) * (
            c.layers == "concat"
        )
        auxiliary = sum(sizes.field_sizes[len(sizes.field_sizes) - len(self.fields.auxiliary) :]) * width
        parts["projections"] += 3 * 2 * (per_batch + heads)
        parts["head"] = 3.0 * 2 * (c.tokens * (1 + drawn + self.row_length) * width + auxiliary)
        return parts

    def _facts(self, reader: TrunkReader, params: Any) -> dict[str, Any]:
        positions = self.training.steps * self.batch_size * self.row_length
        facts: dict[str, Any] = {
            "seed": self.training.seed,
            **parameters_of(params),
            "train_flops": positions * sum(self.flops_parts(reader.known.sizes).values()),
        }
        if self.network.layers == "mixture":
            shares: Any = reader.network.apply({"params": params}, method="layer_shares")
            facts["layer_shares"] = [round(float(share), 4) for share in shares]
        if self.network.item_mix == "age":
            by_age: Any = reader.network.apply({"params": params}, method="age_shares")
            facts["own_share_by_age"] = [round(float(share), 4) for share in by_age]
        return facts

    def _curve(self, reader: TrunkReader, split: Split) -> Evaluator:
        return curve_on(evaluation_users(split, "validation", self.curve_users), split, reader.rank)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedTrunk:
    """The trained trunk, ready to rank and to be used.

    Attributes:
      system: what it was trained as.
      reader: how it is asked.
      params: with what (host arrays).
      told: seed, parameters, train_flops...
      directory: of the training run, whose log knows the seconds.
    """

    system: Trunk
    reader: TrunkReader
    params: Any
    told: Mapping[str, Any]
    directory: epath.Path

    @functools.cached_property
    def fingerprint(self) -> str:
        parts = (self.reader.known.fingerprint, self.reader.history_length)
        return artifact.fingerprint(artifact.tree_fingerprint(self.params), *parts)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {**self.told, "train_seconds": round(seconds_of(read_metrics(self.directory)), 1)}

    def rank(self, evaluation: EvaluationSet, k: int) -> Ranking:
        """The first k items of each user, exactly."""
        return self.reader.rank(self.params, evaluation, k)


def parameters_of(params: Any) -> dict[str, int]:
    """ "parameters", and "non_embedding_parameters": those in no table of items or fields."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    total = sum(np.size(leaf) for _, leaf in leaves)
    tables = ("ids", "table", "offsets", "age_bias", "repeats")
    named = (leaf for path, leaf in leaves if getattr(path[-1], "key", "") in tables)
    return {"parameters": total, "non_embedding_parameters": total - sum(map(np.size, named))}


def initial_trunk(network: TrunkNetwork, key: jax.Array) -> Any:
    """Random parameters with their logical axes."""
    one = np.zeros((1, 1), np.int32)
    batch = {name: one for name in ("decoder_input_tokens", "decoder_positions")}
    batch |= {"decoder_segment_ids": one + 1, "post": np.zeros((1, 1, len(network.post_sizes)), np.int32)}
    batch |= {"request": np.zeros((1, 1, len(network.request_sizes)), np.int32)}
    return network.init(key, batch)["params"]
