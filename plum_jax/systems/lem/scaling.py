"""The large-embedding model as what a study scales: PLUM's comparison at equal training FLOPs (papers §1.4)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from plum_jax.evaluation.scalable import DataFacts, Prepared
from plum_jax.feeds.packing import random_rows
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import forward_flops_per_token, parameter_counts
from plum_jax.objectives.info_nce import MOST_SCALE
from plum_jax.stages import Stages
from plum_jax.systems.lem.system import Lem, initial_towers, item_features
from plum_jax.systems.scaled_items import ScaledItems, branch
from plum_jax.systems.scored_items import judged_with_loss
from plum_jax.training.step_recipe import StepRecipe
from plum_jax.training.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class ScaledLem(ScaledItems):
    """Two towers at any size (`evaluation.scalable.Scalable`); "loss" is nats of each test user's item among all items.

    A size is the user tower, whose width is that of items. The in-batch softmax costs more with a larger batch: a plan
    counts it.

    Attributes:
      data: corpus, split and features; no Semantic IDs are made.
      system: whose tower, steps and batch a study sets.
      ks: cut-offs of recall.
    """

    system: Lem = Lem()

    @property
    def data_config(self) -> Mapping[str, Any]:
        system, data = self.system, self.data
        windows = {"history_length": system.history_length, "length": system.row_length}
        return {"source": data.source, "splitter": data.splitter, "features": data.feature_builders, **windows}

    def sized(self, transformer: DecoderConfig, training: TrainingConfig, batch_size: int) -> ScaledLem:
        changed = dataclasses.replace(self.system, transformer=transformer, training=training, batch_size=batch_size)
        return dataclasses.replace(self, system=changed)

    def prepare(self, directory: epath.Path, max_users: int | None) -> Prepared:
        """The corpus and its features; rows are packed when they are read."""
        stages = self.data.stages(directory)
        split, features = stages.split, item_features(stages)
        trained = self.system.feed(split, features).rows.arrays["decoder_loss_weights"] > 0
        return self.prepared(split, trained, self.system.history_length, max_users, feature_dim=features.shape[1])

    def trial(self, directory: epath.Path, max_users: int | None) -> LemTrial:
        """Reads what was made."""
        return LemTrial(self, directory, max_users)

    def counts(self, data: DataFacts) -> Mapping[str, int]:
        """A decoder's whose vocabulary are the items, the projection of features and the temperature."""
        counts = parameter_counts(self.system.transformer, data.vocab_size)
        further = data.feature_dim * self.system.transformer.d_model + 1
        more = ("non_embedding", "total", "activated_non_embedding", "activated")
        return counts | {name: counts[name] + further for name in more}

    def flops_parts(self, data: DataFacts) -> Mapping[str, float]:
        return self.system.flops_parts(data.feature_dim)

    def evaluation_flops(self, data: DataFacts) -> float:
        """Of the held-out loss and the lists: each reads the history and scores all items once."""
        width = self.system.transformer.d_model
        tower = forward_flops_per_token(self.system.transformer, 0, data.prompt_tokens / 2)
        read = (tower + 2 * data.feature_dim * width) * data.prompt_tokens
        return data.evaluation_users * 2 * (read + 2 * data.vocab_size * width)

    def step(self, data: DataFacts) -> StepRecipe:
        system = self.system
        network = system.network(data.vocab_size, data.feature_dim)
        return StepRecipe(
            training=system.training,
            init_params=functools.partial(initial_towers, network),
            objective=functools.partial(system.objective.on, network),
            batch=functools.partial(_random_batch, system, data),
            batch_size=system.batch_size,
            length=system.row_length,
            flops=system.batch_size * system.row_length * sum(self.flops_parts(data).values()),
            transformer=system.transformer,
        )


@dataclasses.dataclass(frozen=True)
class LemTrial:
    """One size on a prepared corpus."""

    config: ScaledLem
    directory: epath.Path
    max_users: int | None

    @functools.cached_property
    def stages(self) -> Stages:
        return self.config.data.stages(self.directory)

    @functools.cached_property
    def features(self) -> np.ndarray:
        return item_features(self.stages)

    def train(self, directory: epath.Path, branch_at: tuple[epath.Path, int] | None, description: str) -> Any:
        return self.config.system.train(
            self.stages.split, self.features, directory, trunk=branch(branch_at), description=description
        )

    def judge(self, params: Any) -> dict[str, Any]:
        scale = min(float(np.exp(params["log_scale"])), MOST_SCALE)
        scorer, split = self.config.system.scorer(self.features), self.stages.split
        return judged_with_loss(scorer, params, split, self.max_users, self.config.ks, scale)


def _random_batch(system: Lem, data: DataFacts) -> dict[str, np.ndarray]:
    """A batch as the feed gives it, of random values."""
    batch = random_rows(system.batch_size, system.row_length, data.vocab_size)
    shape = batch["decoder_positions"].shape
    features = np.random.default_rng(0).normal(size=(*shape, data.feature_dim)).astype(np.float32)
    log_q = np.full(shape, -np.log(data.vocab_size), np.float32)
    return batch | {"input_features": features, "target_features": features, "target_log_q": log_q}
