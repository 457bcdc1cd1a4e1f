"""The search task alone, on real queries with graded judgements and without users."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.event_fields import EventFields
from plum_jax.corpus.features.text import embed_texts
from plum_jax.corpus.sources.judgements import JudgedQueries
from plum_jax.corpus.splits import TRAIN
from plum_jax.objectives.log_loss import LogLoss
from plum_jax.queries.words import KnownWords
from plum_jax.ranking.ranker import trained_facts
from plum_jax.systems.unicorn.examples import NO_EVENT, NO_SOURCE, SEARCH, TASKS, Examples
from plum_jax.systems.unicorn.feed import ExampleFeed, Negatives
from plum_jax.systems.unicorn.inputs import Inputs, QueryTable, Users
from plum_jax.systems.unicorn.items import ItemSide
from plum_jax.systems.unicorn.network import UnicornConfig, UnicornNetwork
from plum_jax.systems.unicorn.ranking import best_items, logits_of
from plum_jax.systems.unicorn.system import initial_params
from plum_jax.training import trainer, training_config


@dataclasses.dataclass(frozen=True)
class JudgedSearch:
    """The network of `system.Unicorn` for one task, with a judged grade as the label of a pair.

    A judged pair is an example whose label is where its grade lies between the lowest and the highest of training, a
    share of 1; its negatives are drawn as anywhere, uniformly: those of `popular` have no meaning without events.

    Attributes:
      text_dim, query_words, item_words, network, negatives, objective, training, epochs, batch_size: as there.
    """

    text_dim: int = 128
    query_words: int = 8
    item_words: int = 16
    network: UnicornConfig = UnicornConfig(item_ids=False)
    negatives: Negatives = Negatives()
    objective: LogLoss = LogLoss()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    epochs: float | None = None
    batch_size: int = 512

    def __post_init__(self) -> None:
        if self.negatives.popular:
            raise ValueError(f"judged items have no popularity: expected negatives.popular=0, got {self.negatives}")

    def fit(self, judged: JudgedQueries, directory: epath.PathLike, description: str) -> FittedSearch:
        """Trains on the judged pairs of training queries, or goes on, or reads what was trained.

        Raises:
          ValueError: no judged pair of a training query, or one grade only.
        """
        rows = np.flatnonzero(judged.fold[judged.query] == TRAIN)
        grades = judged.grade[rows]
        if not len(rows) or grades.min() == grades.max():
            raise ValueError(
                f"expected judged pairs of training queries with two grades at least, got {len(rows)} pairs"
            )
        label = (grades - grades.min()) / (grades.max() - grades.min())
        examples = search_examples(judged.query[rows], judged.item[rows])
        fitted = self.untrained(judged, epath.Path(directory))
        nothing = np.zeros(len(judged.texts), np.int64)
        arguments = examples, fitted.inputs, self.negatives, nothing, self.batch_size, self.training.seed
        feed = ExampleFeed.of(*arguments, label=label.astype(np.float32))
        said = training_config.in_steps(self, feed.rows.steps_per_epoch)
        params = trainer.train(
            said.training,
            directory=directory,
            init_params=functools.partial(initial_params, fitted.network, next(feed.make_iterator())),
            objective=self.objective.on(fitted.network, self.training.mesh.build()),
            feed=feed,
            fingerprints={"judgements": judged.fingerprint, "system": artifact.fingerprint(said)},
            tokens_per_step=feed.rows.batch_size,
            description=description,
            described={"system": said},
        )
        return dataclasses.replace(fitted, config=said, params=params)

    def untrained(self, judged: JudgedQueries, directory: epath.Path) -> FittedSearch:
        """What it reads, and the network."""
        words = KnownWords.of(judged.training_queries, judged.texts)
        vectors = embed_texts([*judged.queries, *judged.texts], self.text_dim, "queries and items")
        of_queries, of_items = np.split(vectors, [len(judged.queries)])
        nothing = np.zeros((1, self.text_dim), np.float32)
        table = QueryTable(
            words.numbers(["", *judged.queries], self.query_words), np.concatenate([nothing, of_queries])
        )
        numbers = np.zeros((len(judged.texts), 0), np.float32)
        items = ItemSide(of_items, (), numbers, words.numbers(judged.texts, self.item_words))
        fields = EventFields((), (), np.zeros((1, 0), np.int32))
        inputs = Inputs(table, Users.nobody(1, 0), fields, words.size)
        network = UnicornNetwork(self.network, inputs.sizes, items)
        return FittedSearch(self, judged, inputs, network, None, directory)


def search_examples(query: np.ndarray, item: np.ndarray) -> Examples:
    """Of queries by number and items, for nobody in particular."""
    size = len(query)
    return Examples(
        task=np.full(size, TASKS.index(SEARCH), np.int32),
        query=(1 + query).astype(np.int32),
        source=np.full(size, NO_SOURCE, np.int32),
        event=np.full(size, NO_EVENT, np.int64),
        target=item.astype(np.int32),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class FittedSearch:
    """A trained `JudgedSearch`.

    Attributes:
      config: of it.
      judged: the queries.
      inputs, network, params: what it reads, and with what it scores.
      directory: of the training run.
    """

    config: JudgedSearch
    judged: JudgedQueries
    inputs: Inputs
    network: UnicornNetwork
    params: Any
    directory: epath.Path

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "seed": self.config.training.seed,
            "steps": self.config.training.steps,
            **trained_facts(self.params, self.directory),
        }

    @property
    def text_vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 [Q, D_t] of queries and [N, D_t] of items, which the network reads too."""
        return self.inputs.queries.vectors[1:], self.network.items.text

    def pair_scores(self, pairs: np.ndarray) -> np.ndarray:
        """float32 [n], logits of judged pairs by number int [n]."""
        examples = search_examples(self.judged.query[pairs], self.judged.item[pairs])
        contexts = self.inputs.of(examples, np.arange(len(pairs)))
        return logits_of(self.network, self.params, contexts, examples.target[:, None])[:, 0]

    def best(self, queries: np.ndarray, k: int) -> np.ndarray:
        """int32 [n, k], the first items of all for queries by number."""
        examples = search_examples(queries, np.zeros(len(queries)))
        contexts = self.inputs.of(examples, np.arange(len(queries)))
        seen = [np.zeros(0, np.int32)] * len(queries)
        return best_items(self.network, self.params, contexts, seen, k)[0].items
