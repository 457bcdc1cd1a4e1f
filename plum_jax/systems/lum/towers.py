"""Knowledge utilisation in retrieval (§3.3): two towers, the user's with what a user model answers, or without."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.nearest import Neighbours
from plum_jax.evaluation.system import Ranking
from plum_jax.feeds.array_batches import ArrayBatches, CompletedIterator
from plum_jax.feeds.batches import Batch
from plum_jax.objectives.info_nce import InfoNce
from plum_jax.ranking.event_columns import EventColumns
from plum_jax.ranking.knowledge import Knowledge
from plum_jax.ranking.ranker import table_sizes
from plum_jax.stages import Stages
from plum_jax.systems.history_feed import log_q
from plum_jax.systems.lum.towers_network import Towers, TowersConfig
from plum_jax.systems.scored_items import curve_on, evaluation_users, in_blocks
from plum_jax.training import trainer, training_config
from plum_jax.training.metrics_log import read_metrics, seconds_of

_USERS, _ITEMS = 1024, 4096  # of one device call


@dataclasses.dataclass(frozen=True)
class LumTowers:
    """Two towers as a system, with or without a user model's knowledge.

    Attributes:
      network: sizes.
      objective: InfoNCE with negatives from the batch.
      training: steps, optimizer, periods, seed; one microbatch.
      knowledge: a user model whose answers are read; None: none.
      history_length: behaviours that are read.
      behaviour_fields: columns of events that are read of a behaviour.
      category: feature of items that is their category; None: the corpus's first, where it has any.
      batch_size: events of a batch.
      epochs: passes over the training events instead of `training.steps`; None: those steps.
      neighbours: how items are found.
      curve_users: validation users for the curves and for choosing the best checkpoint.
    """

    network: TowersConfig = TowersConfig()
    objective: InfoNce = InfoNce()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    knowledge: Knowledge | None = None
    history_length: int = 50
    behaviour_fields: tuple[str, ...] = ()
    category: str | None = None
    batch_size: int = 1024
    epochs: float | None = None
    neighbours: Neighbours = Neighbours()
    curve_users: int = 2000

    def __post_init__(self) -> None:
        if self.training.microbatches != 1:
            raise ValueError(
                f"towers take their negatives from the batch: expected microbatches=1, got {self.training.microbatches}"
            )

    def fit(self, stages: Stages, name: str) -> FittedTowers:
        """Trains on every training event, or goes on, or reads what was trained."""
        columns = self.columns(stages)
        feed = EventFeed.of(columns, self.batch_size, self.training.seed)
        said = training_config.in_steps(self, feed.rows.steps_per_epoch)
        directory = stages.directory / "systems" / name
        network = Towers(self.network, columns.sizes, columns.categories)
        fitted = FittedTowers(network, columns, self.neighbours, None, self.training.seed, epath.Path(directory))
        some = evaluation_users(stages.split, "validation", self.curve_users)
        curve = curve_on(some, stages.split, lambda params, users, k: fitted.given(params).rank(users, k))
        params = trainer.train(
            said.training,
            directory=directory,
            init_params=functools.partial(initial_towers, network, next(feed.make_iterator())),
            objective=self.objective.on(network, self.training.mesh.build()),
            feed=feed,
            fingerprints={
                "split": stages.split.fingerprint,
                "columns": columns.fingerprint,
                "system": artifact.fingerprint(said),
            },
            evaluators={"validation": curve} if self.training.evaluation_period else {},
            tokens_per_step=self.batch_size,
            description=name,
            described={"system": said},
        )
        return fitted.given(params)

    def columns(self, stages: Stages) -> EventColumns:
        """What is read of an event."""
        return EventColumns.where_said(
            stages.split,
            self.history_length,
            behaviour_fields=self.behaviour_fields,
            category=self.category,
            knowledge=None if self.knowledge is None else self.knowledge.read(stages),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class EventFeed:
    """Training events one by one, in the columns of `EventColumns` and in those that InfoNCE reads.

    Attributes:
      rows: batches of "event".
      columns: what is known of an event.
    """

    rows: ArrayBatches
    columns: EventColumns

    @classmethod
    def of(cls, columns: EventColumns, batch_size: int, seed: int) -> EventFeed:
        """All training events, reshuffled each epoch; guarded against leaks."""
        events = columns.split.training_events()
        columns.split.check_no_leak(events, used_by="two towers")
        rows = events["event"].to_numpy()
        return cls(ArrayBatches({"event": rows}, min(batch_size, len(rows)), seed), columns)

    @functools.cached_property
    def _log_q(self) -> np.ndarray:
        return log_q(self.columns.split)

    def make_iterator(self) -> CompletedIterator:
        """A fresh iterator at the start; it never ends."""
        return CompletedIterator(self.rows, self._completed)

    def _completed(self, number: int, chosen: Batch) -> Batch:
        batch = self.columns.of(chosen["event"])
        item = batch["item"][:, None]
        weights = np.ones(item.shape, np.float32)
        more = {"decoder_target_tokens": item, "decoder_loss_weights": weights, "target_log_q": self._log_q[item]}
        return batch | more


@dataclasses.dataclass(frozen=True, eq=False)
class FittedTowers:
    """Trained towers.

    Attributes:
      network, params: with what they rank (host arrays).
      columns: what is read of an event: that of the target, of which the item is not.
      neighbours: how items are found.
      seed: of the training.
      directory: of the training run, whose log knows the seconds.
    """

    network: Towers
    columns: EventColumns
    neighbours: Neighbours
    params: Any
    seed: int
    directory: epath.Path

    def given(self, params: Any) -> FittedTowers:
        """The same with these parameters."""
        return dataclasses.replace(self, params=params)

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(artifact.tree_fingerprint(self.params), self.columns.fingerprint, self.neighbours)

    @property
    def facts(self) -> Mapping[str, Any]:
        seconds = round(seconds_of(read_metrics(self.directory)), 1)
        return {"seed": self.seed, **table_sizes(self.params), "train_seconds": seconds}

    def rank(self, evaluation: EvaluationSet, k: int) -> Ranking:
        """The first k items of each user, before their target event."""
        params = jax.device_put(self.params)
        users = in_blocks(functools.partial(self._users, params), _USERS, evaluation.target_event)
        items = np.arange(self.network.sizes.items, dtype=np.int32)
        known = self.columns.knowledge
        of_model = items[:, None].astype(np.float32) if known is None else known.items
        vectors = in_blocks(functools.partial(_items, self.network, params), _ITEMS, items, of_model)
        return Ranking(*self.neighbours.rank(users, vectors, evaluation, k))

    def _users(self, params: Any, rows: np.ndarray) -> jax.Array:
        batch = self.columns.of(rows) | {"item": np.zeros(len(rows), np.int32)}
        return _users(self.network, params, batch)


@functools.partial(jax.jit, static_argnums=0)
def _users(network: Towers, params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
    found: Any = network.apply({"params": params}, batch, method="users")
    return found


@functools.partial(jax.jit, static_argnums=0)
def _items(network: Towers, params: Any, items: jax.Array, knowledge: jax.Array) -> jax.Array:
    found: Any = network.apply({"params": params}, items, knowledge, method="items")
    return found


def initial_towers(network: Towers, batch: Mapping[str, np.ndarray], key: jax.Array) -> Any:
    """Random parameters with their logical axes."""
    some = {name: values[:1] for name, values in batch.items()}
    return network.init(key, some, method="towers")["params"]
