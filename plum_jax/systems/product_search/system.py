"""Product search trained on what users took, and the same users' later searches ranked by it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.features.text import item_texts
from plum_jax.corpus.splits import FOLDS, TRAIN, EvaluationSet
from plum_jax.encoders.language_model import LanguageModel
from plum_jax.evaluation.exact_top_k import exact_top_k
from plum_jax.evaluation.system import Ranking
from plum_jax.objectives.objective import Objective
from plum_jax.objectives.threshold_hinge import ThresholdHinge
from plum_jax.queries.category_paths import CategoryQueries
from plum_jax.queries.words import KnownWords
from plum_jax.ranking.ranker import trained_facts
from plum_jax.retrieval.recommend import select_rows
from plum_jax.stages import Stages
from plum_jax.systems.product_search.data import SearchData
from plum_jax.systems.product_search.feed import Negatives, SearchFeed
from plum_jax.systems.product_search.inputs import Queries, Searches, evaluation_searches, training_searches
from plum_jax.systems.product_search.items import ItemSide, categories_of, graph_neighbours
from plum_jax.systems.product_search.network import PLACE, SearchConfig, SearchNetwork
from plum_jax.systems.product_search.places import Location, Places
from plum_jax.systems.product_search.training import trained_towers
from plum_jax.systems.product_search.vectors import item_vectors, search_vectors, share_above
from plum_jax.training import training_config

SEARCH, KNOWN_SEARCH = "search", "search_known"


@dataclasses.dataclass(frozen=True)
class ProductSearch:
    """Two towers over the events of a corpus, whose queries are made of the items' category paths.

    Attributes:
      queries: what users are taken to have searched for.
      text_fields: text of items that is read; not what queries are made of.
      category: feature of items that is read as categories (`items.categories_of`); None: none.
      location: columns of users and items; None: none. It is read where "place" is among the parts.
      language_model: the text transformer and its pieces.
      query_pieces, item_pieces, query_words, item_words: read of a query, and of an item's text.
      history: past items and queries of a user that are read.
      window, neighbours: of the graph, co-watches at most so many positions apart, and how many of an item are read.
      network: sizes and parts.
      negatives: of each batch.
      objective: the hinge, or the softmax.
      training: steps, optimizer, periods, seed.
      epochs: passes over the searches instead of `training.steps`; None: those steps.
      batch_size: searches of a batch.
    """

    queries: CategoryQueries
    text_fields: tuple[str, ...]
    category: str | None = None
    location: Location | None = None
    language_model: LanguageModel = LanguageModel()
    query_pieces: int = 16
    item_pieces: int = 24
    query_words: int = 8
    item_words: int = 16
    history: int = 5
    window: int = 5
    neighbours: int = 8
    network: SearchConfig = SearchConfig()
    negatives: Negatives = Negatives()
    objective: Objective = ThresholdHinge()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    epochs: float | None = None
    batch_size: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "text_fields", tuple(self.text_fields))
        if self.queries.field in self.text_fields:
            raise ValueError(
                f"queries are made of {self.queries.field!r}, and items' text is read of {self.text_fields}: a query "
                "would be known from the item it is to find; leave that field out of SEARCH_TEXT"
            )
        if (PLACE in self.network.parts) != (self.location is not None):
            raise ValueError(
                f"expected a location exactly where 'place' is a part, got {self.location} and {self.network.parts}"
            )

    @property
    def judged_tasks(self) -> list[str]:
        """Searches with queries that are new, and with queries that are not."""
        return [SEARCH, KNOWN_SEARCH]

    def fit(self, stages: Stages, name: str) -> FittedProductSearch:
        """Trains, or goes on, or reads what was trained."""
        directory = epath.Path(stages.directory / "systems" / name)
        data = self.data(stages, directory)
        found = training_searches(stages.split, data.item_queries, data.user_places, self.history)
        feed = SearchFeed.of(
            found,
            data.queries,
            self.negatives,
            data.candidates,
            len(data.items),
            self.batch_size,
            self.training.seed,
        )
        network = data.network(self.network)
        inputs = {"split": stages.split.fingerprint, "inputs": data.fingerprint}
        said, params = trained_towers(self, network, data.model.encoder_params, feed, directory, inputs, name)
        return FittedProductSearch(said, data, network, params, len(found), directory)

    def data(self, stages: Stages, directory: epath.Path) -> SearchData:
        """What the towers read; pieces of text are trained in `directory` where no language model has its own.

        Raises:
          ValueError: no such field.
        """
        split, corpus = stages.split, stages.corpus
        texts, of_items = item_texts(corpus, self.text_fields, "items"), self.queries.of(corpus)
        learnt = [text for text, fold in zip(of_items.texts, of_items.fold, strict=True) if fold == TRAIN]
        model, words = self.language_model.start([*learnt, *texts], directory), KnownWords.of(learnt, texts)
        categories, num_categories = categories_of(corpus, self.category, of_items)
        places = Places.nowhere(corpus) if self.location is None else self.location.numbers(corpus)
        side = ItemSide(
            model.rows(texts, self.item_pieces),
            words.numbers(texts, self.item_words),
            graph_neighbours(split, self.window, self.neighbours),
            categories,
            places.items,
            num_categories,
            places.size,
        )
        asked = Queries(model.rows(of_items.texts, self.query_pieces), words.numbers(of_items.texts, self.query_words))
        return SearchData(split, of_items, asked, words, model, side, places.users)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedProductSearch:
    """A trained `ProductSearch`.

    Attributes:
      config: of it.
      data: what it reads.
      network, params: the towers (host arrays).
      searches: that it trained on.
      directory: of the training run, whose log knows the seconds.
    """

    config: ProductSearch
    data: SearchData
    network: SearchNetwork
    params: Any
    searches: int
    directory: epath.Path

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(artifact.tree_fingerprint(self.params), self.data.fingerprint)

    @functools.cached_property
    def item_vectors(self) -> np.ndarray:
        """float32 [N, D]."""
        return item_vectors(self.network, self.params)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "seed": self.config.training.seed,
            "parts": list(self.config.network.parts),
            "searches": self.searches,
            "steps": self.config.training.steps,
            **trained_facts(self.params, self.directory),
        }

    def searches_of(self, task: str, fold: str, at_most: int | None = None) -> tuple[EvaluationSet, np.ndarray]:
        """Users of a fold with their searches' vectors float32 [n, D], evenly spread.

        Args:
          task: "search": users whose target's query is held out for this fold; "search_known": those whose is not.
          fold: "validation" or "test".
          at_most: searches; None: all.

        Raises:
          ValueError: another task, or no user has such a search.
        """
        if task not in (SEARCH, KNOWN_SEARCH):
            raise ValueError(f"unknown task {task!r}: expected {SEARCH!r} or {KNOWN_SEARCH!r}")
        everybody, queries = self.data.split.evaluation(fold), self.data.item_queries
        number = queries.of_item[everybody.target_item]
        wanted = queries.fold[number] == (FOLDS[fold] if task == SEARCH else TRAIN)
        rows = np.flatnonzero((number >= 0) & wanted & (np.diff(everybody.history_offsets) > 0))
        if not len(rows):
            raise ValueError(f"task {task!r} has no search of fold {fold!r} in corpus {self.data.split.corpus.name!r}")
        users = everybody.take(rows[select_rows(len(rows), at_most)])
        found = evaluation_searches(users, queries, self.data.user_places, self.config.history)
        return users, self.vectors_of(found, self.data.queries)

    def vectors_of(self, found: Searches, queries: Queries) -> np.ndarray:
        """float32 [n, D], of searches with queries by number."""
        return search_vectors(self.network, self.params, found, queries)

    def rank_task(self, task: str, fold: str, k: int, at_most: int | None = None) -> tuple[EvaluationSet, Ranking]:
        """All items ranked for the searches of `searches_of`, and the users that they are of.

        Where the loss has a threshold, "target_above" is whether the target scores above it, and "items_above" which
        share of all items does.
        """
        users, vectors = self.searches_of(task, fold, at_most)
        lists, scores = exact_top_k(vectors, self.item_vectors, users, k)
        return users, Ranking(lists, scores, shares=self._above(users, vectors))

    def _above(self, users: EvaluationSet, vectors: np.ndarray) -> Mapping[str, np.ndarray]:
        if not isinstance(self.config.objective, ThresholdHinge):
            return {}
        threshold = self.config.objective.threshold
        own = np.sum(vectors * self.item_vectors[users.target_item], axis=1)
        above = share_above(vectors, self.item_vectors, threshold)
        return {"target_above": (own >= threshold).astype(np.float64), "items_above": above}
