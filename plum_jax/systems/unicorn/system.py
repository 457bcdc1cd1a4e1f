"""UniCoRn trained on some tasks together, or on one alone, over the events of a corpus."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.features.fields_read import fields_read
from plum_jax.corpus.features.text import embed_texts, item_texts
from plum_jax.corpus.splits import TRAIN, EvaluationSet, Split
from plum_jax.evaluation.judge import judged
from plum_jax.evaluation.metrics import Catalogue
from plum_jax.evaluation.system import Ranking
from plum_jax.objectives.log_loss import LogLoss
from plum_jax.queries.category_paths import CategoryQueries, ItemQueries
from plum_jax.queries.words import KnownWords
from plum_jax.ranking.ranker import trained_facts
from plum_jax.stages import Stages
from plum_jax.systems.unicorn.examples import (
    KNOWN_SEARCH,
    SEARCH,
    TASKS,
    check_tasks,
    evaluation_examples,
    joined,
    queries_of_rows,
    training_examples,
)
from plum_jax.systems.unicorn.feed import ExampleFeed, Negatives
from plum_jax.systems.unicorn.inputs import (
    PERSONALISATIONS,
    Inputs,
    Personalisation,
    QueryTable,
    Users,
    fields_known_before,
)
from plum_jax.systems.unicorn.items import ItemSide, blocks_and_numbers
from plum_jax.systems.unicorn.network import UnicornConfig, UnicornNetwork
from plum_jax.systems.unicorn.ranking import best_items
from plum_jax.systems.unicorn.vectors import VectorSource
from plum_jax.training import trainer, training_config
from plum_jax.training.loop import Evaluator

CURVE_KS = (10,)


@dataclasses.dataclass(frozen=True)
class Unicorn:
    """One ranker of (user, query, source item, country or segment, task; target item) by binary cross-entropy.

    Attributes:
      queries: what users are taken to have searched for.
      text_fields: text of items that is read, in words and as a vector; not what queries are made of.
      tasks: trained together; one: that task alone.
      personalisation: "none"; "cluster", of the users' vectors; "full", the vectors.
      vectors: of users; None: none, and no personalisation.
      clusters: of "cluster", by k-means.
      fields: columns of users or of requests: country, segment.
      blocks: of the run's item features that are read beside the text.
      text_dim: of the text vectors (wordllama's, the first so many of 256 dimensions).
      query_words, item_words: words that are read of a query (or of a text that stands for one), and of an item.
      network: sizes.
      negatives: of each example.
      objective: log loss.
      training: steps, optimizer, periods, seed.
      epochs: passes over the examples of all tasks instead of `training.steps`; None: those steps. A task alone has
        then as many of its examples as in training together.
      batch_size: examples of a batch.
      curve_examples: validation examples a task, for the curves.
    """

    queries: CategoryQueries
    text_fields: tuple[str, ...]
    tasks: tuple[str, ...] = TASKS
    personalisation: Personalisation = "full"
    vectors: VectorSource | None = None
    clusters: int = 64
    fields: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    text_dim: int = 128
    query_words: int = 8
    item_words: int = 16
    network: UnicornConfig = UnicornConfig()
    negatives: Negatives = Negatives()
    objective: LogLoss = LogLoss()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    epochs: float | None = None
    batch_size: int = 512
    curve_examples: int = 200

    def __post_init__(self) -> None:
        for name in ("text_fields", "tasks", "fields", "blocks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_tasks(self.tasks)
        if self.personalisation not in PERSONALISATIONS:
            raise ValueError(f"expected personalisation to be one of {PERSONALISATIONS}, got {self.personalisation!r}")
        if self.queries.field in self.text_fields:
            raise ValueError(
                f"queries are made of {self.queries.field!r}, and items' text is read of {self.text_fields}: a query "
                "would be known from the item it is to find; leave that field out of UNICORN_TEXT"
            )

    @property
    def judged_tasks(self) -> list[str]:
        """Its tasks, and behind a search with queries that are new the one with queries that are not."""
        return [name for task in self.tasks for name in ([task, KNOWN_SEARCH] if task == SEARCH else [task])]

    def fit(self, stages: Stages, name: str) -> FittedUnicorn:
        """Trains, or goes on, or reads what was trained."""
        split, data = stages.split, self.data(stages)
        examples = joined([training_examples(split, data.queries, task) for task in self.tasks])
        seed = self.training.seed
        feed = ExampleFeed.of(examples, data.inputs, self.negatives, split.item_popularity, self.batch_size, seed)
        said = training_config.in_steps(self, feed.rows.steps_per_epoch)
        network, directory = data.network(self.network), epath.Path(stages.directory / "systems" / name)
        counts = {task: int(np.sum(examples.task == TASKS.index(task))) for task in self.tasks}
        fitted = FittedUnicorn(said, data, network, None, counts, directory)
        params = trainer.train(
            said.training,
            directory=directory,
            init_params=functools.partial(initial_params, network, next(feed.make_iterator())),
            objective=self.objective.on(network, self.training.mesh.build()),
            feed=feed,
            fingerprints={
                "split": split.fingerprint,
                "inputs": data.fingerprint,
                "system": artifact.fingerprint(dataclasses.replace(said, vectors=None)),
            },
            evaluators={"validation": self._curve(fitted)} if self.training.evaluation_period else {},
            tokens_per_step=feed.rows.batch_size,
            description=name,
            described={"system": dataclasses.replace(said, vectors=None)},
        )
        return fitted.given(params)

    def data(self, stages: Stages) -> UnicornData:
        """What is read of users, queries and items.

        Raises:
          ValueError: no such field, block or vectors; or a block of features, or a user model, has read what queries
            are made of.
        """
        split, corpus = stages.split, stages.corpus
        for builder in stages.data.feature_builders:
            if builder.name in self.blocks and self.queries.field in fields_read([builder], corpus):
                raise ValueError(
                    f"queries are made of {self.queries.field!r}, which block {builder.name!r} of FEATURES has read: "
                    "leave it out of UNICORN_BLOCKS, or set TextEmbedding.fields"
                )
        texts, queries = item_texts(corpus, self.text_fields, "items"), self.queries.of(corpus)
        learnt = [text for text, fold in zip(queries.texts, queries.fold, strict=True) if fold == TRAIN]
        words = KnownWords.of(learnt, texts)
        rows = queries_of_rows(queries, texts)
        vectors = embed_texts(rows, self.text_dim, "queries and items")
        table = QueryTable(words.numbers(rows, self.query_words), vectors)
        found = None if self.vectors is None or self.personalisation == "none" else self.vectors.read(stages)
        if found is not None and self.queries.field in found.fields_read:
            raise ValueError(
                f"queries are made of {self.queries.field!r}, which the user model that UNICORN_VECTORS names has read "
                f"(it has read {', '.join(found.fields_read)}): its vectors would tell a query's category; train it "
                "without that field, e.g. --gin.features.TextEmbedding.fields=\"('title',)\""
            )
        users = Users.of(self.personalisation, found, split, self.clusters)
        blocks, numbers = blocks_and_numbers(stages, self.blocks)
        of_model = found.items if found is not None and self.personalisation == "full" else None
        of_text = vectors[len(rows) - len(texts) :]
        items = ItemSide(of_text, blocks, numbers, words.numbers(texts, self.item_words), of_model)
        inputs = Inputs(table, users, fields_known_before(split, self.fields), words.size)
        return UnicornData(split, queries, words, items, inputs)

    def _curve(self, fitted: FittedUnicorn) -> Evaluator:
        """Recall and NDCG at 10 of some validation examples of each task, and the mean of the recalls."""
        split = fitted.data.split
        catalogue = Catalogue(split.corpus.num_items)

        def evaluate(params: Any) -> dict[str, float]:
            found: dict[str, float] = {}
            for task in self.tasks:
                users, ranking = fitted.given(params).rank_task(task, "validation", max(CURVE_KS), self.curve_examples)
                of_task = judged(ranking, users.user, users.target_item, CURVE_KS, catalogue)[0]
                found |= {f"{task}_{name}": of_task[name] for name in ("recall@10", "ndcg@10")}
            return found | {"recall@10": float(np.mean([found[f"{task}_recall@10"] for task in self.tasks]))}

        return evaluate


@dataclasses.dataclass(frozen=True, eq=False)
class UnicornData:
    """What a model reads.

    Attributes:
      split: events and folds.
      queries: of the items.
      words: that are known.
      items: what is known of items.
      inputs: of contexts.
    """

    split: Split
    queries: ItemQueries
    words: KnownWords
    items: ItemSide
    inputs: Inputs

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self.inputs.fingerprint, self.items.fingerprint, self.queries.fold)

    def network(self, config: UnicornConfig) -> UnicornNetwork:
        """For these data."""
        return UnicornNetwork(config, self.inputs.sizes, self.items)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedUnicorn:
    """A trained `Unicorn`.

    Attributes:
      config: of it.
      data: what it reads.
      network, params: with what it scores (host arrays).
      examples: of each task, that an epoch trains on.
      directory: of the training run, whose log knows the seconds.
    """

    config: Unicorn
    data: UnicornData
    network: UnicornNetwork
    params: Any
    examples: Mapping[str, int]
    directory: epath.Path

    def given(self, params: Any) -> FittedUnicorn:
        """The same with these parameters."""
        return dataclasses.replace(self, params=params)

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(artifact.tree_fingerprint(self.params), self.data.fingerprint)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "seed": self.config.training.seed,
            "personalisation": self.config.personalisation,
            "tasks": list(self.config.tasks),
            "examples": dict(self.examples),
            "steps": self.config.training.steps,
            **trained_facts(self.params, self.directory),
        }

    def rank_task(self, task: str, fold: str, k: int, at_most: int | None = None) -> tuple[EvaluationSet, Ranking]:
        """All items ranked for the examples of a task and fold (`evaluation_examples`), and the users that they are of.

        Raises:
          ValueError: a task that it was not trained on.
        """
        self.require_task(SEARCH if task == KNOWN_SEARCH else task)
        users, examples = evaluation_examples(self.data.split, self.data.queries, task, fold, at_most)
        contexts = self.data.inputs.of(examples, np.arange(len(examples)))
        seen = [users.history(row) for row in range(len(users))]
        lists, _ = best_items(self.network, self.params, contexts, seen, k)
        return users, Ranking(lists)

    def require_task(self, task: str) -> None:
        """Raises `ValueError` for a task that it was not trained on."""
        if task not in self.config.tasks:
            raise ValueError(f"unknown task {task!r}: expected one that was trained, {', '.join(self.config.tasks)}")


def initial_params(network: UnicornNetwork, batch: Mapping[str, np.ndarray], key: jax.Array) -> Any:
    """Random parameters with their logical axes."""
    some = {name: values[:1] for name, values in batch.items()}
    return network.init(key, some)["params"]
