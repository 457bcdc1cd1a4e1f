"""A ranker by the behaviours before an event: embeddings, an interest module, and layers over them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.event_fields import EventFields
from plum_jax.evaluation.metrics.classification import classification_metrics
from plum_jax.objectives.log_loss import LogLoss
from plum_jax.ranking import past
from plum_jax.ranking.event_batches import EventBatches
from plum_jax.ranking.event_columns import EventColumns
from plum_jax.ranking.knowledge import Knowledge
from plum_jax.ranking.labels import Label, LabelledEvents
from plum_jax.ranking.networks.network import RankingNetwork, RankingNetworkConfig
from plum_jax.stages import Stages
from plum_jax.training import trainer, training_config
from plum_jax.training.initial import warm_started
from plum_jax.training.loop import Evaluator
from plum_jax.training.metrics_log import read_metrics, seconds_of
from plum_jax.training.step import Initialiser

_BLOCK = 4096  # events of one device call
CURVE = ("auc", "gauc", "log_loss")


@dataclasses.dataclass(frozen=True)
class BehaviourRanker:
    """DIN, DIEN, SIM or TWIN, by `network.interest`.

    Attributes:
      network: sizes, and what becomes of the behaviours.
      objective: log loss, and the weight of an auxiliary one.
      training: steps, optimizer, periods, seed.
      history_length: behaviours that are read.
      batch_size: events of a batch, at most those that there are.
      epochs: passes over the labelled training events instead of `training.steps`; None: those steps.
      behaviour_fields: columns of events that are read of a behaviour; None: the label's.
      request_fields: columns of users and context that are read of the event; None: all that there are.
      category: feature of items that is their category; None: the corpus's first, where it has any.
      knowledge: a user model whose answers are further inputs; None: none.
      training_share: the labelled training events from one share of them to another, in order of time.
      statistics: whether it reads, of user and item, what the labelled training events before its share say.
      warm_start: name of a ranker of the run whose parameters it begins with (`initial.warm_started`); None: random
        ones.
      curve_events: validation events for the curves and for choosing the best checkpoint, those of whole users.
    """

    network: RankingNetworkConfig = RankingNetworkConfig()
    objective: LogLoss = LogLoss()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    history_length: int = 50
    batch_size: int = 1024
    epochs: float | None = None
    behaviour_fields: tuple[str, ...] | None = None
    request_fields: tuple[str, ...] | None = None
    category: str | None = None
    knowledge: Knowledge | None = None
    training_share: tuple[float, float] = (0.0, 1.0)
    statistics: bool = False
    warm_start: str | None = None
    curve_events: int = 50_000

    def fit(self, stages: Stages, label: Label, name: str) -> FittedBehaviourRanker:
        """Trains on every labelled training event, or goes on, or reads what was trained.

        Raises:
          ValueError: no such column, one label only, or a module that needs categories where items have none.
        """
        columns = self.columns(stages, label)
        events = past.training_share(label.of(stages.split), self.training_share)
        feed = self.feed(columns, events)
        said = training_config.in_steps(self, feed.steps_per_epoch)
        network, directory = self.build(columns), stages.directory / "rankers" / name
        evaluators: dict[str, Evaluator] = {}
        if self.training.evaluation_period or self.training.select_by:
            evaluators["validation"] = curve(network, columns, events, self.curve_events)
        init: Initialiser = functools.partial(initial_params, network, columns.of(np.arange(1)))
        inherited = {}
        if self.warm_start is not None:
            old = past.inherited_params(stages, self.warm_start)
            init, inherited = warm_started(init, old), {"warm_start": artifact.tree_fingerprint(old)}
        params = trainer.train(
            said.training,
            directory=directory,
            init_params=init,
            objective=self.objective.on(network, self.training.mesh.build()),
            feed=feed,
            fingerprints={
                "split": stages.split.fingerprint,
                "columns": columns.fingerprint,
                "label": artifact.fingerprint(label),
                "system": artifact.fingerprint(said),
                **inherited,
            },
            evaluators=evaluators,
            tokens_per_step=feed.rows.batch_size,
            description=name,
            described={"system": said, "label": label},
        )
        return FittedBehaviourRanker(network, params, columns, self.training.seed, epath.Path(directory))

    def columns(self, stages: Stages, label: Label) -> EventColumns:
        """What is read of an event."""
        return EventColumns.where_said(
            stages.split,
            self.history_length,
            behaviour_fields=(label.field,) if self.behaviour_fields is None else self.behaviour_fields,
            request_fields=self.request_fields,
            category=self.category,
            knowledge=None if self.knowledge is None else self.knowledge.read(stages),
            statistics=self._statistics(stages, label),
        )

    def _statistics(self, stages: Stages, label: Label) -> EventFields | None:
        """Of the events before the share that is trained on."""
        if not self.statistics:
            return None
        start = self.training_share[0]
        if not start:
            raise ValueError("statistics are those of earlier events: expected a training_share that begins after 0.0")
        return past.past_statistics(past.training_share(label.of(stages.split), (0.0, start)))

    def build(self, columns: EventColumns) -> RankingNetwork:
        """The network for these columns."""
        interest = self.network.interest
        if interest.needs_categories and columns.categories.size == 1:
            raise ValueError(
                f"{type(interest).__name__} searches behaviours of the candidate's category, and corpus "
                f"{columns.split.corpus.name!r} has no feature of items: expected one (BehaviourRanker.category); take "
                "Din, Dien or Twin"
            )
        return RankingNetwork(self.network, columns.sizes, columns.categories)

    def feed(self, columns: EventColumns, events: LabelledEvents) -> EventBatches:
        """Batches of labelled training events, reshuffled each epoch."""
        drawn = self.network.interest.needs_drawn
        return EventBatches.of(columns, events, self.batch_size, self.training.seed, drawn=drawn)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedBehaviourRanker:
    """A trained `BehaviourRanker`.

    Attributes:
      network, params: with what it scores (host arrays).
      columns: what it reads.
      seed: of its training.
      directory: of the training run, whose log knows the seconds.
    """

    network: RankingNetwork
    params: Any
    columns: EventColumns
    seed: int
    directory: epath.Path

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(artifact.tree_fingerprint(self.params), self.columns.fingerprint)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"seed": self.seed, **trained_facts(self.params, self.directory)}

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n], logits of events by their rows."""
        return scores(self.network, self.params, self.columns, rows)


def scores(network: RankingNetwork, params: Any, columns: EventColumns, rows: np.ndarray) -> np.ndarray:
    """float32 [n], in blocks of one shape, for another would compile again."""
    found = np.empty(len(rows), np.float32)
    params = jax.device_put(params)
    block = min(_BLOCK, max(len(rows), 1))
    for start in range(0, len(rows), block):
        some = rows[start : start + block]
        filled = np.concatenate([some, np.repeat(some[:1], block - len(some))])
        found[start : start + block] = np.asarray(logits_of(network, params, columns.of(filled)))[: len(some)]
    return found


@functools.partial(jax.jit, static_argnums=0)
def logits_of(network: nn.Module, params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
    """float32, of the events of a batch, as a ranker's network has them."""
    output: Any = network.apply({"params": params}, batch)
    return output.logits


def curve(network: RankingNetwork, columns: EventColumns, events: LabelledEvents, at_most: int) -> Evaluator:
    """AUC, GAUC and log loss of the validation events of some users, evenly spread."""
    rows = events.rows["validation"]
    user = columns.split.corpus.events["user"].to_numpy()
    if len(rows) > at_most:
        everybody = np.unique(user[rows])
        places = np.linspace(0, len(everybody) - 1, max(1, len(everybody) * at_most // len(rows)))
        rows = rows[np.isin(user[rows], everybody[places.astype(int)])]

    def evaluate(params: Any) -> dict[str, float]:
        found = classification_metrics(events.label[rows], scores(network, params, columns, rows), user[rows])
        return {name: found[name] for name in CURVE if name in found}

    return evaluate


def initial_params(network: RankingNetwork, batch: Mapping[str, np.ndarray], key: jax.Array) -> Any:
    """Random parameters with their logical axes."""
    return network.init(key, batch)["params"]


def trained_facts(params: Any, directory: epath.Path) -> dict[str, Any]:
    """`table_sizes` of parameters and the "train_seconds" of their run, for its row."""
    return {**table_sizes(params), "train_seconds": round(seconds_of(read_metrics(directory)), 1)}


def table_sizes(params: Any) -> dict[str, int]:
    """ "parameters", and "non_embedding_parameters": those in no table of embeddings."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    tables = [leaf for path, leaf in leaves if "embedding" in str(path[-1])]
    total = sum(np.size(leaf) for _, leaf in leaves)
    return {"parameters": total, "non_embedding_parameters": total - sum(map(np.size, tables))}
