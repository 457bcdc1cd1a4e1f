"""The trunk as what a study scales, in parameters and in data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from plum_jax.evaluation.metrics import summarise
from plum_jax.evaluation.scalable import DataFacts, Prepared
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import forward_flops_per_token
from plum_jax.objectives.next_items import NextItems
from plum_jax.stages import Stages
from plum_jax.systems.known import ItemSizes
from plum_jax.systems.scaled_items import ScaledItems, branch
from plum_jax.systems.scored_items import evaluation_users, item_nats, judged_on
from plum_jax.systems.trunk.feed import drawn_a_row
from plum_jax.systems.trunk.items import TrunkItems
from plum_jax.systems.trunk.known import TrunkKnown
from plum_jax.systems.trunk.network import TrunkNetwork
from plum_jax.systems.trunk.reading import histories_of
from plum_jax.systems.trunk.system import FittedTrunk, Trunk, initial_trunk, parameters_of
from plum_jax.training import saved_params
from plum_jax.training.step_recipe import StepRecipe
from plum_jax.training.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class ScaledTrunk(ScaledItems):
    """The trunk at any size (`evaluation.scalable.Scalable`); "loss" is nats of each test user's item among all items,
    without what it is worth that it was seen.

    A token of the plan is an event. Budgets in tokens are the scale in data; a corpus that is smaller than a budget is
    seen again.

    Attributes:
      data: corpus, split and features; no Semantic IDs are made.
      system: whose transformer, steps and batch a study sets.
      ks: cut-offs of recall.
    """

    system: Trunk = Trunk()

    @property
    def data_config(self) -> Mapping[str, Any]:
        system, data = self.system, self.data
        reads = (system.use_features, system.fields, system.age, system.windows)
        features = data.feature_builders
        return {"source": data.source, "splitter": data.splitter, "features": features, "reads": reads}

    def sized(self, transformer: DecoderConfig, training: TrainingConfig, batch_size: int) -> ScaledTrunk:
        unscanned = dataclasses.replace(transformer, scan_layers=False)  # whose every layer can be read
        network = dataclasses.replace(self.system.network, transformer=unscanned)
        changed = dataclasses.replace(self.system, network=network, training=training, batch_size=batch_size)
        return dataclasses.replace(self, system=changed)

    def prepare(self, directory: epath.Path, max_users: int | None) -> Prepared:
        """The corpus and what is known of its items; rows are packed when they are read."""
        stages = self.data.stages(directory)
        split, known = stages.split, self.system.known(stages)
        trained = self.system.feed(split, known).rows.arrays["places"] > 0
        return self.prepared(
            split,
            trained,
            self.system.windows.length,
            max_users,
            feature_dim=known.sizes.feature_dim,
            field_sizes=known.sizes.field_sizes,
        )

    def trial(self, directory: epath.Path, max_users: int | None) -> TrunkTrial:
        """Reads what was made."""
        return TrunkTrial(self, directory, max_users)

    def counts(self, data: DataFacts) -> Mapping[str, int]:
        """Of the arrays themselves, as they would be; whatever is no table is activated."""
        shapes = nn.unbox(jax.eval_shape(functools.partial(initial_trunk, self._network(data)), jax.random.key(0)))
        counts = parameters_of(jax.tree.map(lambda leaf: np.broadcast_to(0, leaf.shape), shapes))
        total, rest = counts["parameters"], counts["non_embedding_parameters"]
        tables = {"embedding": total - rest, "head": 0, "total": total, "activated": total}
        return {**tables, "non_embedding": rest, "activated_non_embedding": rest}

    def flops_parts(self, data: DataFacts) -> Mapping[str, float]:
        return self.system.flops_parts(_sizes(data))

    def evaluation_flops(self, data: DataFacts) -> float:
        """Of the held-out loss and the lists: each reads the history and scores all items once."""
        transformer = self.system.network.transformer
        tower = forward_flops_per_token(transformer, 0, data.prompt_tokens / 2)
        items = 2 * data.vocab_size * data.feature_dim * transformer.d_model
        scores = 2 * data.vocab_size * transformer.d_model
        return data.evaluation_users * 2 * (tower * data.prompt_tokens + scores) + 2 * items

    def step(self, data: DataFacts) -> StepRecipe:
        system, network = self.system, self._network(data)
        objective = NextItems(system.further_weight, tuple(system.fields.auxiliary.values()))
        return StepRecipe(
            training=system.training,
            init_params=functools.partial(initial_trunk, network),
            objective=functools.partial(objective.on, network),
            batch=functools.partial(random_batch, system, network),
            batch_size=system.batch_size,
            length=system.row_length,
            flops=system.batch_size * system.row_length * sum(self.flops_parts(data).values()),
            transformer=system.network.transformer,
        )

    def _network(self, data: DataFacts) -> TrunkNetwork:
        """As `Trunk.network_of`, of items about which nothing but their number is known."""
        random = np.random.default_rng(0)
        features = random.normal(size=(data.vocab_size, data.feature_dim)).astype(np.float32)
        fields, sizes = self.system.fields, tuple(data.field_sizes)
        ends = len(sizes) - len(fields.request) - len(fields.auxiliary), len(sizes) - len(fields.auxiliary)
        parts = sizes[: ends[0]], sizes[ends[0] : ends[1]], sizes[ends[1] :]
        return TrunkNetwork(self.system.network, TrunkItems(features, np.ones(data.vocab_size, np.int32)), *parts)


@dataclasses.dataclass(frozen=True)
class TrunkTrial:
    """One size on a prepared corpus."""

    config: ScaledTrunk
    directory: epath.Path
    max_users: int | None

    @functools.cached_property
    def stages(self) -> Stages:
        return self.config.data.stages(self.directory)

    @functools.cached_property
    def known(self) -> TrunkKnown:
        return self.config.system.known(self.stages)

    def train(self, directory: epath.Path, branch_at: tuple[epath.Path, int] | None, description: str) -> Any:
        return self.config.system.train(
            self.stages, self.known, directory, trunk=branch(branch_at), description=description
        )

    def fitted(self, directory: epath.Path) -> FittedTrunk:
        """What a cell has trained in a directory, for applications.

        Raises:
          artifact.ArtifactError: nothing was.
        """
        system, params = self.config.system, saved_params.load_params(directory / "params")
        return FittedTrunk(system, system.reader(self.stages.split, self.known), params, {}, directory)

    def judge(self, params: Any) -> dict[str, Any]:
        split = self.stages.split
        reader = self.config.system.reader(split, self.known)
        test = evaluation_users(split, "test", self.max_users)
        users = reader.users(params, histories_of(test), reader.requests_of(test))
        nats = item_nats(users, reader.items(params), test.target_item)
        ranking = reader.rank(params, test, max(self.config.ks))
        return summarise({"loss": nats}) | judged_on(test, split, ranking, self.config.ks)


def _sizes(data: DataFacts) -> ItemSizes:
    return ItemSizes((), data.vocab_size, data.feature_dim, tuple(data.field_sizes))


def random_batch(system: Trunk, network: TrunkNetwork) -> dict[str, np.ndarray]:
    """A batch as the feed gives it, of random values: for timing, where values play no part."""
    random, shape = np.random.default_rng(0), (system.batch_size, system.row_length)
    num_items, tokens = len(network.items.ages), network.config.tokens
    drawn = shape[0], drawn_a_row(system.num_drawn, num_items, shape[0])

    def fields(sizes: tuple[int, ...]) -> np.ndarray:
        arrays = [random.integers(0, size, shape) for size in sizes]
        return np.stack(arrays, axis=-1).astype(np.int32) if arrays else np.zeros((*shape, 0), np.int32)

    return {
        "decoder_segment_ids": np.ones(shape, np.int32),
        "decoder_positions": np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape).copy(),
        "places": np.ones(shape, np.int32),
        "decoder_input_tokens": random.integers(0, num_items, shape).astype(np.int32),
        "post": fields(network.post_sizes),
        "request": fields(network.request_sizes),
        "target_items": random.integers(0, num_items, (*shape, tokens)).astype(np.int32),
        "target_weights": np.ones((*shape, tokens), np.float32),
        "auxiliary": fields(network.auxiliary_sizes),
        "drawn_items": random.integers(0, num_items, drawn).astype(np.int32),
        "drawn_log_q": np.full(drawn, -np.log(num_items), np.float32),
    }
