"""LUM as a system: trained by next-condition-item prediction, it ranks by what it answers to one condition."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet, Split
from plum_jax.evaluation.exact_top_k import exact_top_k
from plum_jax.evaluation.system import Ranking
from plum_jax.feeds.array_batches import ArrayBatches
from plum_jax.feeds.item_columns import ItemColumns
from plum_jax.model.counts import train_flops_parts
from plum_jax.objectives.info_nce import InfoNce
from plum_jax.objectives.kernels import with_attention_on
from plum_jax.ranking.event_rows import training_rows
from plum_jax.stages import Stages
from plum_jax.systems.history_feed import log_q
from plum_jax.systems.known import ItemSizes, Known
from plum_jax.systems.lum.asking import Asker
from plum_jax.systems.lum.network import LumConfig, LumNetwork
from plum_jax.systems.scored_items import curve_on, evaluation_users
from plum_jax.training import trainer, training_config
from plum_jax.training.loop import Evaluator
from plum_jax.training.metrics_log import training_facts


@dataclasses.dataclass(frozen=True)
class Lum:
    """A large user model (arXiv 2502.08309, §3.1): p(i_l | c_1, i_1, ..., i_{l-1}, c_l) by InfoNCE at the conditions.

    Attributes:
      network: sizes and choices.
      objective: InfoNCE with negatives from the batch, which is that of all devices.
      training: steps, optimizer, periods, seed; one microbatch, for negatives come from the batch.
      conditions: fields that a condition is made of (`EventFields.of`): engagement and context columns of the event it
        stands before, "gap", columns of the user, a category of the item; () is next-item prediction.
      asked: the condition that ranking asks for, by name, e.g. {"rating": 5}; what is not said is unknown.
      use_features, use_codes, use_statistics: what is read of an item beside its own row (`Known.of`).
      history_length: events of a window, and the latest of a history that is read.
      batch_size, row_length: rows of a batch and events of a row (two tokens each); short histories share rows.
      epochs: passes over the rows that `fit` trains for, instead of `training.steps`; None: those steps.
      curve_users: validation users for the curves and for choosing the best checkpoint.
    """

    network: LumConfig = LumConfig()
    objective: InfoNce = InfoNce()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    conditions: Sequence[str] = ()
    asked: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    use_features: bool = True
    use_codes: bool = False
    use_statistics: bool = True
    history_length: int = 256
    batch_size: int = 8
    row_length: int = 256
    epochs: float | None = None
    curve_users: int = 2000

    def __post_init__(self) -> None:
        if self.training.microbatches != 1:
            raise ValueError(
                f"LUM takes its negatives from the batch: expected microbatches=1, got {self.training.microbatches}, "
                "which would leave each piece its own positions alone; lower batch_size, or use more devices"
            )
        if self.history_length > self.row_length:
            raise ValueError(
                f"expected history_length of at most row_length {self.row_length}, got {self.history_length}"
            )

    def fit(self, stages: Stages, name: str) -> FittedLum:
        """Trains on every training event, or goes on, or reads what was trained."""
        split, known = stages.split, self.known(stages)
        if self.epochs is not None:
            training = self.training.for_passes(self.epochs, self.feed(split, known).rows.steps_per_epoch)
            return dataclasses.replace(self, training=training, epochs=None).fit(stages, name)
        asker, directory = self.asker(split, known), stages.directory / "systems" / name
        asked = asker.conditions([self.asked])
        if unknown := known.events.unknown:
            print(f"{name}: events without a value of a condition's field, read as unknown: {unknown}")
        evaluators = {"validation": self._curve(asker, asked, split)} if self.training.evaluation_period else {}
        params = self.train(split, known, directory, evaluators=evaluators, description=name)
        return FittedLum(self, asker, asked, params, self._facts(params, known), epath.Path(directory))

    def train(
        self,
        split: Split,
        known: Known,
        directory: epath.PathLike,
        *,
        evaluators: Mapping[str, Evaluator] | None = None,
        trunk: trainer.Trunk | None = None,
        description: str = "lum",
    ) -> Any:
        """Parameters after the last step, or after the best one; the arguments are those of `trainer.train`."""
        network, training = self.network_of(known.sizes), self.training
        return trainer.train(
            training,
            directory=directory,
            init_params=functools.partial(initial_lum, network),
            objective=self.objective.on(network, training.mesh.build()),
            feed=self.feed(split, known),
            fingerprints={
                "split": split.fingerprint,
                "items": known.fingerprint,
                "system": artifact.fingerprint(self),
            },
            evaluators=evaluators,
            step_flops=self.batch_size * self.row_length * sum(self.flops_parts(known.sizes).values()),
            tokens_per_step=2 * self.batch_size * self.row_length,
            trunk=trunk,
            description=description,
            described={"system": self},
        )

    def known(self, stages: Stages) -> Known:
        """What is read of a run."""
        return Known.of(
            stages,
            self.use_features,
            self.conditions,
            use_codes=self.use_codes,
            use_statistics=self.use_statistics,
        )

    def network_of(self, sizes: ItemSizes) -> LumNetwork:
        """The network for these items and conditions."""
        return LumNetwork(self.network, sizes.codebook_sizes, sizes.num_items, sizes.feature_dim, sizes.field_sizes)

    def asker(self, split: Split, known: Known) -> Asker:
        """How it is asked."""
        item = split.corpus.events["item"].to_numpy().astype(np.int32)
        network = with_attention_on(self.network_of(known.sizes), self.training.mesh.build())
        return Asker(network, known, item, self.history_length)

    def feed(self, split: Split, known: Known) -> ItemColumns:
        """Packed rows of training events, reshuffled each epoch; guarded against leaks."""
        rows = training_rows(split, self.history_length, self.row_length, self.training.seed, used_by="LUM")
        real = rows["decoder_segment_ids"] > 0
        item = split.corpus.events["item"].to_numpy()[rows["events"]]
        rows |= {"decoder_target_tokens": np.where(real, item, 0), "decoder_loss_weights": real.astype(np.float32)}
        batches = ArrayBatches(rows, min(self.batch_size, len(real)), self.training.seed)
        columns = known.columns("target", "decoder_target_tokens")
        columns["target_log_q"] = ("decoder_target_tokens", log_q(split))
        columns["conditions"] = ("events", known.events.buckets)
        return ItemColumns(batches, columns)

    def flops_parts(self, sizes: ItemSizes) -> dict[str, float]:
        """Training FLOPs of one event, two tokens, by part (`model.counts.train_flops_parts`); scores against the whole
        batch as "head".
        """
        of_token = train_flops_parts(self.network.transformer, 0, (2 * self.row_length + 1) / 2)
        parts = {name: 2 * value for name, value in of_token.items()}
        width = self.network.transformer.d_model
        parts["projections"] += 3 * 2 * sizes.feature_dim * width
        parts["head"] = 3.0 * 2 * self.batch_size * self.row_length * width
        return parts

    def _facts(self, params: Any, known: Known) -> dict[str, Any]:
        total = sum(np.size(leaf) for leaf in jax.tree.leaves(params))
        tables = [params["items"].get(name, ()) for name in ("ids", "codes")] + [
            params.get("fields", {}).get("table", ())
        ]
        events = self.training.steps * self.batch_size * self.row_length
        return {
            "seed": self.training.seed,
            "parameters": total,
            "non_embedding_parameters": total - sum(np.size(table) for table in tables),
            "train_flops": events * sum(self.flops_parts(known.sizes).values()),
        }

    def _curve(self, asker: Asker, asked: np.ndarray, split: Split) -> Evaluator:
        rank = functools.partial(rank_by_answers, asker, asked)
        return curve_on(evaluation_users(split, "validation", self.curve_users), split, rank)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedLum:
    """The trained model, ready to be asked.

    Attributes:
      system: what it was trained as.
      asker: how it is asked.
      asked: int32 [1, F], the condition that ranking asks for.
      params: with what (host arrays).
      told: seed, parameters, train_flops...
      directory: of the training run, whose log knows the seconds.
    """

    system: Lum
    asker: Asker
    asked: np.ndarray
    params: Any
    told: Mapping[str, Any]
    directory: epath.Path

    @functools.cached_property
    def fingerprint(self) -> str:
        parts = (self.asker.known.fingerprint, self.asker.history_length, self.asked)
        return artifact.fingerprint(artifact.tree_fingerprint(self.params), *parts)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {**self.told, **training_facts(self.directory, self.told["train_flops"])}

    def rank(self, evaluation: EvaluationSet, k: int) -> Ranking:
        """The first k items of each user under the condition, exactly."""
        return rank_by_answers(self.asker, self.asked, self.params, evaluation, k)


def rank_by_answers(asker: Asker, asked: np.ndarray, params: Any, evaluation: EvaluationSet, k: int) -> Ranking:
    """The items that are most like the answer to one condition int32 [1, F]."""
    answers = asker.answers(params, histories_of(evaluation), asked)[:, 0]
    lists, scores = exact_top_k(answers, asker.items(params), evaluation, k)
    return Ranking(lists, scores)


def histories_of(evaluation: EvaluationSet) -> list[np.ndarray]:
    """int64 [n] each, the rows of the corpus's events before each user's target."""
    offsets = evaluation.history_offsets
    return [evaluation.history_events[start:stop] for start, stop in zip(offsets, offsets[1:], strict=False)]


def initial_lum(network: LumNetwork, key: jax.Array) -> Any:
    """Random parameters with their logical axes."""
    one = jnp.zeros((1, 1), jnp.int32)
    batch = {name: one for name in ("decoder_target_tokens", "decoder_positions")}
    batch |= {"decoder_segment_ids": one + 1, "target_known": one > 0}
    batch |= {"conditions": jnp.zeros((1, 1, len(network.condition_sizes)), jnp.int32)}
    batch |= {"target_codes": jnp.zeros((1, 1, len(network.codebook_sizes)), jnp.int32)}
    batch |= {"target_features": jnp.zeros((1, 1, network.feature_dim))}
    return network.init(key, batch)["params"]
