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
from plum_jax.evaluation.metrics import RankedItems
from plum_jax.evaluation.nearest import Neighbours
from plum_jax.evaluation.system import Ranking
from plum_jax.feeds.array_batches import ArrayBatches
from plum_jax.objectives.info_nce import InfoNce
from plum_jax.ranking.event_columns import EventColumns
from plum_jax.ranking.knowledge import Knowledge
from plum_jax.ranking.ranker import table_sizes
from plum_jax.stages import Stages
from plum_jax.systems.lum.towers_network import Towers, TowersConfig
from plum_jax.systems.scored_items import curve_on, evaluation_users
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
        if self.epochs is not None:
            steps = max(1, round(self.epochs * feed.rows.steps_per_epoch))
            training = dataclasses.replace(self.training, steps=steps)
            return dataclasses.replace(self, training=training, epochs=None).fit(stages, name)
        network, directory = (
            Towers(self.network, columns.sizes, columns.categories),
            stages.directory / "systems" / name,
        )
        fitted = FittedTowers(network, columns, self.neighbours, None, self.training.seed, epath.Path(directory))
        some = evaluation_users(stages.split, "validation", self.curve_users)
        curve = curve_on(some, stages.split, lambda params, users, k: fitted.given(params).rank(users, k))
        params = trainer.train(
            self.training,
            directory=directory,
            init_params=functools.partial(initial_towers, network, next(feed.make_iterator())),
            objective=self.objective.on(network, self.training.mesh.build()),
            feed=feed,
            fingerprints={
                "split": stages.split.fingerprint,
                "columns": columns.fingerprint,
                "system": artifact.fingerprint(self),
            },
            evaluators={"validation": curve} if self.training.evaluation_period else {},
            tokens_per_step=self.batch_size,
            description=name,
            described={"system": self},
        )
        return fitted.given(params)

    def columns(self, stages: Stages) -> EventColumns:
        """What is read of an event."""
        corpus = stages.split.corpus
        return EventColumns(
            stages.split,
            self.history_length,
            behaviour_fields=tuple(self.behaviour_fields),
            request_fields=(*corpus.user_features, *corpus.context_features),
            category=next(iter(corpus.item_features), None) if self.category is None else self.category,
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
    def log_q(self) -> np.ndarray:
        """float32 [I], of an item's share of the training events."""
        popularity = np.maximum(self.columns.split.item_popularity, 1)
        return np.log(popularity / popularity.sum()).astype(np.float32)

    def make_iterator(self) -> EventFeedIterator:
        """A fresh iterator at the start; it never ends."""
        return EventFeedIterator(self)


class EventFeedIterator:
    """Iterator over `EventFeed`; its state is that of the rows."""

    def __init__(self, feed: EventFeed) -> None:
        self._feed = feed
        self._rows = feed.rows.make_iterator()

    def get_state(self) -> dict[str, Any]:
        """Where the rows are."""
        return self._rows.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where `get_state` was taken."""
        self._rows.set_state(state)

    def __iter__(self) -> EventFeedIterator:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        batch = self._feed.columns.of(next(self._rows)["event"])
        item = batch["item"][:, None]
        weights = np.ones(item.shape, np.float32)
        more = {"decoder_target_tokens": item, "decoder_loss_weights": weights, "target_log_q": self._feed.log_q[item]}
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
        lists, scores = self._lists(evaluation, k)
        return Ranking(lists, scores)

    def _lists(self, evaluation: EvaluationSet, k: int) -> tuple[RankedItems, np.ndarray]:
        params, rows = jax.device_put(self.params), evaluation.target_event
        users = []
        for start in range(0, len(rows), _USERS):
            some = rows[start : start + _USERS]
            block = np.concatenate([some, np.repeat(some[:1], _USERS - len(some))])
            batch = self.columns.of(block) | {"item": np.zeros(_USERS, np.int32)}
            users.append(np.asarray(_users(self.network, params, batch))[: len(some)])
        return self.neighbours.rank(np.concatenate(users), self._items(params), evaluation, k)

    def _items(self, params: Any) -> np.ndarray:
        number, found = self.network.sizes.items, []
        known = self.columns.knowledge
        for start in range(0, number, _ITEMS):
            some = np.minimum(np.arange(start, start + _ITEMS, dtype=np.int32), number - 1)
            of_model = some[:, None].astype(np.float32) if known is None else known.items[some]
            found.append(np.asarray(_items(self.network, params, some, of_model)))
        return np.concatenate(found)[:number]


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
