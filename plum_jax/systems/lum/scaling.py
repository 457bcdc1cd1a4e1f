"""The large user model as what a study scales: in parameters, and by studies of several histories in their length."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from plum_jax.evaluation.metrics import summarise
from plum_jax.evaluation.scalable import DataFacts, Prepared
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import forward_flops_per_token, parameter_counts
from plum_jax.stages import Stages
from plum_jax.systems.known import ItemSizes, Known
from plum_jax.systems.lum.system import Lum, histories_of, initial_lum, rank_by_answers
from plum_jax.systems.scaled_items import ScaledItems, branch
from plum_jax.systems.scored_items import evaluation_users, item_nats, judged_on
from plum_jax.training.step_recipe import StepRecipe
from plum_jax.training.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class ScaledLum(ScaledItems):
    """LUM at any size (`evaluation.scalable.Scalable`); "loss" is nats of each test user's item among all items, under
    the condition that it came with.

    A size is the user encoder, whose width is that of tokens. The in-batch softmax costs more with a larger batch: a
    plan counts it. A token of the plan is an event (two of the encoder's).

    Attributes:
      data: corpus, split and features; Semantic IDs where the system reads them.
      system: whose encoder, steps and batch a study sets.
      ks: cut-offs of recall.
    """

    system: Lum = Lum()

    @property
    def data_config(self) -> Mapping[str, Any]:
        system, data = self.system, self.data
        reads = (system.use_features, system.use_codes, system.use_statistics, system.conditions)
        windows = {"history_length": system.history_length, "length": system.row_length, "reads": reads}
        return {"source": data.source, "splitter": data.splitter, "features": data.feature_builders, **windows}

    def sized(self, transformer: DecoderConfig, training: TrainingConfig, batch_size: int) -> ScaledLum:
        network = dataclasses.replace(self.system.network, transformer=transformer)
        changed = dataclasses.replace(self.system, network=network, training=training, batch_size=batch_size)
        return dataclasses.replace(self, system=changed)

    def prepare(self, directory: epath.Path, max_users: int | None) -> Prepared:
        """The corpus and what is known of its items; rows are packed when they are read."""
        stages = self.data.stages(directory)
        split, known = stages.split, self.system.known(stages)
        trained = self.system.feed(split, known).rows.arrays["decoder_loss_weights"] > 0
        return self.prepared(
            split,
            trained,
            self.system.history_length,
            max_users,
            codebook_sizes=known.sizes.codebook_sizes,
            feature_dim=known.sizes.feature_dim,
            field_sizes=known.sizes.field_sizes,
        )

    def trial(self, directory: epath.Path, max_users: int | None) -> LumTrial:
        """Reads what was made."""
        return LumTrial(self, directory, max_users)

    def counts(self, data: DataFacts) -> Mapping[str, int]:
        """A decoder's whose vocabulary are items, codes and buckets of conditions, and what is there besides: the
        projection of features, the token of a condition without fields, the temperature.
        """
        width = self.system.network.transformer.d_model
        rows = data.vocab_size if self.system.network.item_ids else 0
        counts = parameter_counts(
            self.system.network.transformer, rows + sum(data.codebook_sizes) + sum(data.field_sizes)
        )
        further = (data.feature_dim + 1) * width + (self.system.network.temperature is None)
        more = ("non_embedding", "total", "activated_non_embedding", "activated")
        return counts | {name: counts[name] + further for name in more}

    def flops_parts(self, data: DataFacts) -> Mapping[str, float]:
        return self.system.flops_parts(_sizes(data))

    def evaluation_flops(self, data: DataFacts) -> float:
        """Of the held-out loss and the lists: each reads the history and scores all items once."""
        width = self.system.network.transformer.d_model
        tower = forward_flops_per_token(self.system.network.transformer, 0, data.prompt_tokens)
        read = (2 * tower + 2 * data.feature_dim * width) * data.prompt_tokens
        return data.evaluation_users * 2 * (read + 2 * data.vocab_size * width)

    def step(self, data: DataFacts) -> StepRecipe:
        system, network = self.system, self.system.network_of(_sizes(data))
        return StepRecipe(
            training=system.training,
            init_params=functools.partial(initial_lum, network),
            objective=functools.partial(system.objective.on, network),
            batch=functools.partial(random_batch, system, _sizes(data)),
            batch_size=system.batch_size,
            length=system.row_length,
            flops=system.batch_size * system.row_length * sum(self.flops_parts(data).values()),
            transformer=system.network.transformer,
        )


@dataclasses.dataclass(frozen=True)
class LumTrial:
    """One size on a prepared corpus."""

    config: ScaledLum
    directory: epath.Path
    max_users: int | None

    @functools.cached_property
    def stages(self) -> Stages:
        return self.config.data.stages(self.directory)

    @functools.cached_property
    def known(self) -> Known:
        return self.config.system.known(self.stages)

    def train(self, directory: epath.Path, branch_at: tuple[epath.Path, int] | None, description: str) -> Any:
        return self.config.system.train(
            self.stages.split, self.known, directory, trunk=branch(branch_at), description=description
        )

    def judge(self, params: Any) -> dict[str, Any]:
        system, split, ks = self.config.system, self.stages.split, self.config.ks
        asker = system.asker(split, self.known)
        test = evaluation_users(split, "test", self.max_users)
        own = self.known.events.buckets[test.target_event][:, None]
        scale: Any = asker.network.apply({"params": params}, method="scale")
        answers = asker.answers(params, histories_of(test), own)[:, 0]
        nats = item_nats(answers * np.float32(scale), asker.items(params), test.target_item)
        ranking = rank_by_answers(asker, asker.conditions([system.asked]), params, test, max(ks))
        return summarise({"loss": nats}) | judged_on(test, split, ranking, ks)


def _sizes(data: DataFacts) -> ItemSizes:
    return ItemSizes(tuple(data.codebook_sizes), data.vocab_size, data.feature_dim, tuple(data.field_sizes))


def random_batch(system: Lum, sizes: ItemSizes) -> dict[str, np.ndarray]:
    """A batch as the feed gives it, of random values: for timing, where values play no part."""
    random, shape = np.random.default_rng(0), (system.batch_size, system.row_length)
    fields = [random.integers(0, size, shape) for size in sizes.field_sizes]
    codes = [random.integers(0, size, shape) for size in sizes.codebook_sizes]
    stacked = [np.stack(arrays, axis=-1) if arrays else np.zeros((*shape, 0)) for arrays in (fields, codes)]
    return {
        "decoder_segment_ids": np.ones(shape, np.int32),
        "decoder_positions": np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape).copy(),
        "events": np.zeros(shape, np.int32),
        "decoder_target_tokens": random.integers(0, sizes.num_items, shape).astype(np.int32),
        "decoder_loss_weights": np.ones(shape, np.float32),
        "target_known": np.ones(shape, bool),
        "target_codes": stacked[1].astype(np.int32),
        "target_features": random.normal(size=(*shape, sizes.feature_dim)).astype(np.float32),
        "target_log_q": np.full(shape, -np.log(sizes.num_items), np.float32),
        "conditions": stacked[0].astype(np.int32),
    }
