"""Item-level generative retrieval as what a study scales, beside the flat decoder on the same budgets."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from plum_jax.evaluation.judge import judged
from plum_jax.evaluation.metrics import Catalogue, summarise
from plum_jax.evaluation.scalable import DataFacts, Prepared
from plum_jax.feeds.packing import random_rows
from plum_jax.model.config import DecoderConfig
from plum_jax.stages import Stages
from plum_jax.systems.item_history.counts import (
    item_history_counts,
    item_history_search_flops,
)
from plum_jax.systems.item_history.system import ItemHistory, initial_item_history
from plum_jax.systems.known import ItemSizes, Known
from plum_jax.systems.scaled_items import ScaledItems, branch
from plum_jax.systems.scored_items import evaluation_users
from plum_jax.training.step_recipe import StepRecipe
from plum_jax.training.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class ScaledItemHistory(ScaledItems):
    """The item-level network at any size (`evaluation.scalable.Scalable`).

    A size is the Transformer over items; the depth decoder has its width, heads and MLP, and layers of its own.
    A token is an item (so is D); "loss" is nats a Semantic-ID token, as the flat decoder has it.

    Attributes:
      data: up to the Semantic IDs, and features where the system reads them.
      system: whose sizes, steps and batch a study sets.
      ks: cut-offs of recall.
    """

    system: ItemHistory = ItemHistory()

    @property
    def data_config(self) -> Mapping[str, Any]:
        system = self.system
        windows = {"history_length": system.history_length, "length": system.row_length}
        return {"data": self.data, "use_features": system.use_features, "fields": system.fields, **windows}

    def sized(self, transformer: DecoderConfig, training: TrainingConfig, batch_size: int) -> ScaledItemHistory:
        depth = dataclasses.replace(transformer, num_layers=self.system.network.depth.num_layers)
        network = dataclasses.replace(self.system.network, transformer=transformer, depth=depth)
        changed = dataclasses.replace(self.system, network=network, training=training, batch_size=batch_size)
        return dataclasses.replace(self, system=changed)

    def prepare(self, directory: epath.Path, max_users: int | None) -> Prepared:
        """Corpus, features and Semantic IDs; rows are packed when they are read."""
        stages = self.data.stages(directory)
        split, table = stages.split, stages.table
        known = Known.of(stages, self.system.use_features, self.system.fields)
        trained = self.system.feed(split, known).rows.arrays["decoder_loss_weights"] > 0
        return self.prepared(
            split,
            trained,
            self.system.history_length,
            max_users,
            loss_is_of_items=len(table.items_of_sid().sids) == table.num_items,
            sid_levels=table.num_levels,
            codebook_sizes=table.codebook_sizes,
            feature_dim=known.features.shape[1],
            field_sizes=known.events.sizes,
        )

    def trial(self, directory: epath.Path, max_users: int | None) -> ItemHistoryTrial:
        """Reads what was made."""
        return ItemHistoryTrial(self, directory, max_users)

    def counts(self, data: DataFacts) -> Mapping[str, int]:
        return item_history_counts(self.system.network, _sizes(data))

    def flops_parts(self, data: DataFacts) -> Mapping[str, float]:
        return self.system.flops_parts(_sizes(data))

    def evaluation_flops(self, data: DataFacts) -> float:
        """Of the beam search twice: the held-out loss and the dense candidates cost less than one."""
        system = self.system
        search = item_history_search_flops(system.network, _sizes(data), data.prompt_tokens, system.num_beams)
        return 2 * data.evaluation_users * search

    def step(self, data: DataFacts) -> StepRecipe:
        system, sizes = self.system, _sizes(data)
        network = system.network_of(sizes)
        positions = system.batch_size * system.row_length
        return StepRecipe(
            training=system.training,
            init_params=functools.partial(initial_item_history, network),
            objective=functools.partial(system.objective.on, network),
            batch=functools.partial(_random_batch, system, sizes),
            batch_size=system.batch_size,
            length=system.row_length,
            flops=positions * sum(self.flops_parts(data).values()),
            transformer=system.network.transformer,
        )


@dataclasses.dataclass(frozen=True)
class ItemHistoryTrial:
    """One size on prepared data."""

    config: ScaledItemHistory
    directory: epath.Path
    max_users: int | None

    @functools.cached_property
    def stages(self) -> Stages:
        return self.config.data.stages(self.directory)

    @functools.cached_property
    def known(self) -> Known:
        return Known.of(self.stages, self.config.system.use_features, self.config.system.fields)

    def train(self, directory: epath.Path, branch_at: tuple[epath.Path, int] | None, description: str) -> Any:
        return self.config.system.train(
            self.stages.split, self.known, directory, trunk=branch(branch_at), description=description
        )

    def judge(self, params: Any) -> dict[str, Any]:
        split, known, ks = self.stages.split, self.known, tuple(self.config.ks)
        test = evaluation_users(split, "test", self.max_users)
        ranker = self.config.system.ranker(known)
        nats = ranker.target_nats(params, test).astype(np.float64)
        popularity = split.item_popularity
        catalogue = Catalogue(split.corpus.num_items, popularity == 0, popularity, known.codes)
        metrics, _ = judged(ranker.rank(params, test, max(ks)), test.user, test.target_item, ks, catalogue)
        levels = {f"loss_level_{level + 1}": float(mean) for level, mean in enumerate(nats.mean(axis=0))}
        return summarise({"loss": nats.mean(axis=1)}) | levels | metrics


def _sizes(data: DataFacts) -> ItemSizes:
    return ItemSizes(tuple(data.codebook_sizes), data.vocab_size, data.feature_dim, tuple(data.field_sizes))


def _random_batch(system: ItemHistory, sizes: ItemSizes) -> dict[str, np.ndarray]:
    """A batch as the feed gives it, of random values."""
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, size, sizes.num_items) for size in sizes.codebook_sizes], axis=1)
    features = rng.normal(size=(sizes.num_items, sizes.feature_dim)).astype(np.float32)
    batch = random_rows(system.batch_size, system.row_length, sizes.num_items)
    fields = np.zeros((*batch["decoder_positions"].shape, len(sizes.field_sizes)), np.int32)
    batch |= {"input_events": np.zeros_like(batch["decoder_positions"]), "input_fields": fields}
    a_row = system.drawn_a_row(system.batch_size, sizes)
    batch["drawn_items"] = rng.integers(0, sizes.num_items, (system.batch_size, a_row), dtype=np.int32)
    batch["drawn_log_q"] = np.full(batch["drawn_items"].shape, -np.log(sizes.num_items), np.float32)
    values = {"known": np.ones(sizes.num_items, bool), "codes": codes.astype(np.int32), "features": features}
    of = {"input": "decoder_input_tokens", "target": "decoder_target_tokens", "drawn": "drawn_items"}
    further = {f"{what}_{name}": array[batch[of[what]]] for what in of for name, array in values.items()}
    return batch | further
