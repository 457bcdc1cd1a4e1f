"""The towers of text alone, on real queries with graded judgements and without users."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from plum_jax.corpus.features.text import embed_texts
from plum_jax.corpus.sources.judgements import JudgedQueries
from plum_jax.corpus.splits import TRAIN
from plum_jax.encoders.language_model import LanguageModel, LanguageModelStart
from plum_jax.objectives.objective import Objective
from plum_jax.objectives.threshold_hinge import ThresholdHinge
from plum_jax.queries.words import KnownWords
from plum_jax.ranking.ranker import trained_facts
from plum_jax.systems.product_search.feed import LowerGrades, Negatives, SearchFeed
from plum_jax.systems.product_search.inputs import Queries, Searches
from plum_jax.systems.product_search.items import ItemSide
from plum_jax.systems.product_search.network import TERMS, TEXT, SearchConfig, SearchNetwork
from plum_jax.systems.product_search.training import trained_towers
from plum_jax.systems.product_search.vectors import item_vectors, search_vectors
from plum_jax.training import training_config

TEXT_DIM = 128  # of the vectors whose cosine the towers are compared with


@dataclasses.dataclass(frozen=True)
class JudgedTextSearch:
    """The network of `system.ProductSearch` for queries and texts of items: a judged pair of a training query with a
    grade of at least `relevant` is a search for its item. All items may be drawn as negatives.

    Attributes:
      relevant: the least grade of such a pair.
      lower_grades: the first draw of each search is one of its query's judged items of a lower grade, if there is one.
      language_model, query_pieces, item_pieces, query_words, item_words, network, negatives, objective, training,
        epochs, batch_size: as there; parts are "text" and "terms" alone.
    """

    relevant: float
    lower_grades: bool = False
    language_model: LanguageModel = LanguageModel()
    query_pieces: int = 16
    item_pieces: int = 24
    query_words: int = 8
    item_words: int = 16
    network: SearchConfig = SearchConfig(parts=(TEXT, TERMS))
    negatives: Negatives = Negatives()
    objective: Objective = ThresholdHinge()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    epochs: float | None = None
    batch_size: int = 256

    def __post_init__(self) -> None:
        if not {*self.network.parts} <= {TEXT, TERMS}:
            raise ValueError(f"judged queries have no users or events: expected 'text', 'terms', got {self.network}")

    def fit(self, judged: JudgedQueries, directory: epath.PathLike, description: str) -> FittedTextSearch:
        """Trains, or goes on, or reads what was trained.

        Raises:
          ValueError: no relevant pair of a training query.
        """
        directory = epath.Path(directory)
        rows = np.flatnonzero((judged.fold[judged.query] == TRAIN) & (judged.grade >= self.relevant))
        if not len(rows):
            raise ValueError(
                f"no judged pair of a training query has a grade of {self.relevant} or more: lower RELEVANT"
            )
        model, queries, network = self._towers(judged, directory)
        everything = np.arange(len(judged.texts), dtype=np.int32)
        found, seed = searches_for(judged.query[rows], judged.item[rows]), self.training.seed
        feed = SearchFeed.of(found, queries, self.negatives, everything, len(everything), self.batch_size, seed)
        if self.lower_grades:
            feed = dataclasses.replace(feed, lower=LowerGrades.of(judged.query, judged.item, judged.grade, rows))
        inputs = {"judgements": judged.fingerprint, "text": model.fingerprint}
        said, params = trained_towers(self, network, model.encoder_params, feed, directory, inputs, description)
        return FittedTextSearch(said, judged, queries, network, params, directory)

    def _towers(
        self, judged: JudgedQueries, directory: epath.Path
    ) -> tuple[LanguageModelStart, Queries, SearchNetwork]:
        """What the transformer begins with, the queries as they are read, and the network."""
        learnt = judged.training_queries
        model = self.language_model.start([*learnt, *judged.texts], directory)
        words = KnownWords.of(learnt, judged.texts)
        queries = Queries(
            model.rows(judged.queries, self.query_pieces), words.numbers(judged.queries, self.query_words)
        )
        texts = model.rows(judged.texts, self.item_pieces)
        nothing = np.zeros((len(judged.texts), 1), np.int32)
        items = ItemSide(texts, words.numbers(judged.texts, self.item_words), nothing, nothing, nothing[:, 0])
        network = SearchNetwork(self.network, model.config, model.vocab_size, words.size, items)
        return model, queries, network


def searches_for(query: np.ndarray, item: np.ndarray) -> Searches:
    """Of queries and items by number, for nobody in particular."""
    nothing = np.zeros((len(query), 1), np.int32)
    return Searches(query.astype(np.int32), nothing, nothing, nothing[:, 0], item.astype(np.int32))


@dataclasses.dataclass(frozen=True, eq=False)
class FittedTextSearch:
    """A trained `JudgedTextSearch`, as `judge_search` wants it.

    Attributes:
      config: of it.
      judged: the queries.
      queries: as the towers read them.
      network, params: the towers.
      directory: of the training run.
    """

    config: JudgedTextSearch
    judged: JudgedQueries
    queries: Queries
    network: SearchNetwork
    params: Any
    directory: epath.Path

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "seed": self.config.training.seed,
            "steps": self.config.training.steps,
            **trained_facts(self.params, self.directory),
        }

    @functools.cached_property
    def item_vectors(self) -> np.ndarray:
        """float32 [N, D]."""
        return item_vectors(self.network, self.params)

    @functools.cached_property
    def query_vectors(self) -> np.ndarray:
        """float32 [Q, D]."""
        numbers = np.arange(len(self.judged.queries))
        return search_vectors(self.network, self.params, searches_for(numbers, numbers * 0), self.queries)

    @functools.cached_property
    def text_vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 [Q, 128] and [N, 128], of static word vectors: what nothing was trained for."""
        found = embed_texts([*self.judged.queries, *self.judged.texts], TEXT_DIM, "queries and items")
        return found[: len(self.judged.queries)], found[len(self.judged.queries) :]

    def pair_scores(self, pairs: np.ndarray) -> np.ndarray:
        """float32 [n], cosines of judged pairs by number int [n]."""
        return np.sum(self.query_vectors[self.judged.query[pairs]] * self.item_vectors[self.judged.item[pairs]], axis=1)

    def best(self, queries: np.ndarray, k: int) -> np.ndarray:
        """int32 [n, k], the first items of all for queries by number."""
        vectors = self.query_vectors[queries]
        found = [np.argsort(-(self.item_vectors @ vector), kind="stable")[:k] for vector in vectors]
        return np.stack(found).astype(np.int32)
