"""Item-level generative retrieval as a system: trained by both losses at once, ranked by both scores."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet, Split
from plum_jax.evaluation.system import Ranking
from plum_jax.feeds.item_columns import DRAWN, DrawnItems, ItemColumns
from plum_jax.model.item_history import ItemHistoryConfig, ItemHistoryNetwork, Items
from plum_jax.model.item_history_decoder import search_params
from plum_jax.objectives.next_item import NextItem
from plum_jax.retrieval.recommend import Recommender
from plum_jax.stages import Stages
from plum_jax.systems.history_feed import history_feed
from plum_jax.systems.item_history.counts import item_history_counts, item_history_flops_parts
from plum_jax.systems.item_history.ranking import ItemHistoryRanker
from plum_jax.systems.known import ItemSizes, Known
from plum_jax.systems.scored_items import curve_on, evaluation_users
from plum_jax.training import trainer, training_config
from plum_jax.training.loop import Evaluator
from plum_jax.training.metrics_log import training_facts
from tasks.retrieval import Reward


@dataclasses.dataclass(frozen=True)
class ItemHistory:
    """A history of items in, the Semantic ID of the next one out; a dense head scores items from the same state.

    Attributes:
      network: sizes.
      objective: weights of the two losses.
      training: steps, optimizer, periods, seed.
      history_length: items of a window, and the latest of a history that ranking reads.
      batch_size, row_length: rows of a batch and positions of a row; several windows share one.
      num_drawn: negatives of a batch, at least one a row; as many as there are items and more: every item once, the
        full softmax.
      use_features: whether items have the run's features beside their codes.
      fields: of the events that are read, beside their items: "gap" (time since the one before), and columns of events
        and users by name (`event_fields.EventFields`).
      num_beams: width of the search, and number of the dense head's candidates.
      dense_share: of the dense score in the ranking (`ranking.ItemHistoryRanker`).
      epochs: passes over the rows that `fit` trains for, instead of `training.steps`; None: those steps.
      curve_users: validation users for the curves and for choosing the best checkpoint.
      reward: of an event as a target, the weight of its loss in both heads (PLUM §1.3, L_SFT).
    """

    network: ItemHistoryConfig = ItemHistoryConfig()
    objective: NextItem = NextItem()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    history_length: int = 50
    batch_size: int = 16
    row_length: int = 100
    num_drawn: int = 512
    use_features: bool = True
    fields: tuple[str, ...] = ()
    num_beams: int = 64
    dense_share: float = 0.5
    epochs: float | None = None
    curve_users: int = 2000
    reward: Reward = Reward()

    def __post_init__(self) -> None:
        if not 0 <= self.dense_share <= 1:
            raise ValueError(f"expected a dense_share of 0 to 1, got {self.dense_share}")
        if self.dense_share and not self.objective.dense_weight:
            raise ValueError(f"dense_share is {self.dense_share}, but the dense head is not trained: set it to 0")
        if self.dense_share < 1 and not self.objective.generative_weight:
            raise ValueError(f"dense_share is {self.dense_share}, but the codes are not trained: set it to 1")

    def fit(self, stages: Stages, name: str) -> FittedItemHistory:
        """Trains on every training event but each user's first, or goes on, or reads what was trained."""
        split, known = stages.split, Known.of(stages, self.use_features, self.fields)
        if self.epochs is not None:
            training = self.training.for_passes(self.epochs, self.feed(split, known).rows.steps_per_epoch)
            return dataclasses.replace(self, training=training, epochs=None).fit(stages, name)
        directory, ranker = stages.directory / "systems" / name, self.ranker(known)
        evaluators = {"validation": self._curve(ranker, split)} if self.training.evaluation_period else {}
        params = self.train(split, known, directory, evaluators=evaluators, description=name)
        return FittedItemHistory(ranker, params, self._facts(known), epath.Path(directory))

    def train(
        self,
        split: Split,
        known: Known,
        directory: epath.PathLike,
        *,
        evaluators: Mapping[str, Evaluator] | None = None,
        trunk: trainer.Trunk | None = None,
        description: str = "item history",
    ) -> Any:
        """Parameters after the last step, or after the best one; the arguments are those of `trainer.train`."""
        network = self.network_of(known.sizes)
        positions = self.batch_size * self.row_length
        return trainer.train(
            self.training,
            directory=directory,
            init_params=functools.partial(initial_item_history, network),
            objective=self.objective.on(network, self.training.mesh.build()),
            feed=self.feed(split, known),
            fingerprints={
                "split": split.fingerprint,
                "items": known.fingerprint,
                "system": artifact.fingerprint(self),
            },
            evaluators=evaluators,
            step_flops=positions * sum(self.flops_parts(known.sizes).values()),
            tokens_per_step=positions,
            trunk=trunk,
            description=description,
            described={"system": self},
        )

    def network_of(self, sizes: ItemSizes) -> ItemHistoryNetwork:
        """The network for these items."""
        return ItemHistoryNetwork(
            self.network, sizes.codebook_sizes, sizes.num_items, sizes.feature_dim, sizes.field_sizes
        )

    def ranker(self, known: Known) -> ItemHistoryRanker:
        """How it ranks."""
        network = self.network_of(known.sizes)
        return ItemHistoryRanker(network, known, self.history_length, self.num_beams, self.dense_share)

    def feed(self, split: Split, known: Known) -> ItemColumns:
        """Packed rows of item indexes with what is known of the items, reshuffled each epoch."""
        histories = history_feed(
            split,
            history_length=self.history_length,
            row_length=self.row_length,
            batch_size=self.batch_size,
            seed=self.training.seed,
            used_by="item history",
            with_events=True,
            reward=self.reward(split.corpus, split.training_events()["event"].to_numpy()),
        )
        columns = {"input_fields": ("input_events", known.events.buckets)}
        columns |= known.columns("input", "decoder_input_tokens") | known.columns("target", "decoder_target_tokens")
        drawn = DrawnItems(
            self.drawn_a_row(histories.batch_size, known.sizes), np.flatnonzero(known.in_training), self.training.seed
        )
        return ItemColumns(histories, columns | known.columns("drawn", DRAWN), drawn)

    def drawn_a_row(self, batch_size: int, sizes: ItemSizes) -> int:
        """Negatives that each row of a batch brings."""
        return -(-min(self.num_drawn, sizes.num_items) // batch_size)

    def flops_parts(self, sizes: ItemSizes) -> dict[str, float]:
        """Model FLOPs of one position in training, by part."""
        return item_history_flops_parts(
            self.network,
            sizes,
            self.row_length,
            generative=self.objective.generative_share if self.objective.generative_weight else 0.0,
            drawn=self.drawn_a_row(self.batch_size, sizes) * self.batch_size if self.objective.dense_weight else 0,
            positions=self.batch_size * self.row_length,
        )

    def _facts(self, known: Known) -> dict[str, Any]:
        counts = item_history_counts(self.network, known.sizes)
        positions = self.training.steps * self.batch_size * self.row_length
        return {
            "seed": self.training.seed,
            "parameters": counts["total"],
            "non_embedding_parameters": counts["non_embedding"],
            "train_flops": positions * sum(self.flops_parts(known.sizes).values()),
            "sid_table": known.sid_table.fingerprint,
        }

    def _curve(self, ranker: ItemHistoryRanker, split: Split) -> Evaluator:
        return curve_on(evaluation_users(split, "validation", self.curve_users), split, ranker.rank)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedItemHistory:
    """The trained network, ready to rank.

    Attributes:
      ranker: how.
      params: with what (host arrays).
      told: seed, parameters, train_flops...
      directory: of the training run, whose log knows the seconds.
    """

    ranker: ItemHistoryRanker
    params: Any
    told: Mapping[str, Any]
    directory: epath.Path

    @functools.cached_property
    def fingerprint(self) -> str:
        ranker = self.ranker
        search = (ranker.num_beams, ranker.dense_share, ranker.history_length)
        return artifact.fingerprint(artifact.tree_fingerprint(self.params), ranker.known.fingerprint, search)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {**self.told, **training_facts(self.directory, self.told["train_flops"])}

    def rank(self, evaluation: EvaluationSet, k: int) -> Ranking:
        """The first k items of each user."""
        return self.ranker.rank(self.params, evaluation, k)

    @property
    def search(self) -> tuple[Recommender, Any]:
        """The beam search, which is what an export serves, and its parameters: ranks by codes alone. A prompt is, event
        after event, the item's number and the buckets of its fields.
        """
        return self.ranker.recommender, search_params(self.params, self.ranker.vectors(self.params))


def initial_item_history(network: ItemHistoryNetwork, key: jax.Array) -> Any:
    """Random parameters with their logical axes."""
    one, levels = jnp.zeros((1, 1), jnp.int32), len(network.codebook_sizes)
    items = Items(one, one > 0, jnp.zeros((1, 1, levels), jnp.int32), jnp.zeros((1, 1, network.feature_dim)))
    fields = jnp.zeros((1, 1, len(network.field_sizes)), jnp.int32)
    return network.init(key, items, fields, one, jnp.ones((1, 1, 1), bool))["params"]
