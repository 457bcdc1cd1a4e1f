"""What a classifier of queries is, and those that count instead of training: NPMI, and neighbours."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import scipy.sparse
from etils import epath

from plum_jax.query_understanding.catalogue import Catalogue
from plum_jax.query_understanding.log import QueryLog
from plum_jax.query_understanding.similar import (
    ByText,
    Conversions,
    SimilarQueries,
    numbers_of_words,
    word_matrix,
)


class Classifier(Protocol):
    """A frozen dataclass, bound in gin."""

    def fit(self, log: QueryLog, directory: epath.Path) -> FittedClassifier:
        """Learns from the log's training events."""


class FittedClassifier(Protocol):
    """Says the classes of queries."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a row of `results.jsonl` says of it; "train_seconds" among it."""

    def shares(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, C], not negative, rows that add to 1: how much speaks for each class."""


@dataclasses.dataclass(frozen=True)
class Npmi:
    """Co-occurrence of words and classes by normalised pointwise mutual information (Bouma, GSCL 2009).

    npmi(w, c) = log(p(w, c) / (p(w) p(c))) / -log p(w, c) over training events, 0 where they never meet or less than by
    chance; a query's score is the mean over its words, zeros for those that are not known. Shares are the scores,
    divided by their sum; the most frequent class where no word is known.
    """

    def fit(self, log: QueryLog, directory: epath.Path) -> FittedNpmi:
        begun = time.perf_counter()
        number = numbers_of_words([log.texts[query] for query in log.learnt_queries])
        words = word_matrix(log.texts, number)
        together = (words.T @ log.conversions).tocoo()
        of_word, of_class = (np.asarray(together.sum(axis=axis)).ravel() for axis in (1, 0))
        total = float(together.data.sum())
        p = together.data / total
        with np.errstate(divide="ignore", invalid="ignore"):
            lift = np.log(p * total**2 / (of_word[together.row] * of_class[together.col]))
            value = np.where(p < 1, lift / -np.log(p), 1.0)
        kept = value > 0
        table = scipy.sparse.coo_array(
            (value[kept].astype(np.float32), (together.row[kept], together.col[kept])), shape=together.shape
        )
        prior = (of_class / total).astype(np.float32)
        return FittedNpmi(number, table.tocsr(), prior, {"train_seconds": round(time.perf_counter() - begun, 1)})


@dataclasses.dataclass(frozen=True, eq=False)
class FittedNpmi:
    """`Npmi` with its table float32 [W, C]."""

    number: Mapping[str, int]
    table: scipy.sparse.csr_array
    prior: np.ndarray
    facts: Mapping[str, Any]

    def shares(self, texts: Sequence[str]) -> np.ndarray:
        scores = (word_matrix(texts, self.number) @ self.table).toarray()
        return shares_or_prior(scores, self.prior)


@dataclasses.dataclass(frozen=True)
class NearestQueries:
    """What the training queries that are like a query converted to.

    Attributes:
      similar: how likeness is measured.
    """

    similar: SimilarQueries = ByText()

    def fit(self, log: QueryLog, directory: epath.Path) -> FittedNearest:
        begun, learnt = time.perf_counter(), log.learnt_queries
        index = self.similar.index([log.texts[query] for query in learnt])
        return _nearest(Conversions(index, log.conversions[learnt]), begun)


@dataclasses.dataclass(frozen=True)
class NearestItems:
    """What the items whose texts have a query's words stand under, taken or not.

    Attributes:
      catalogue: the items, and how likeness is measured.
    """

    catalogue: Catalogue

    def fit(self, log: QueryLog, directory: epath.Path) -> FittedNearest:
        begun = time.perf_counter()
        return _nearest(Conversions(self.catalogue.index(log), self.catalogue.counts(log, log.training_events)), begun)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedNearest:
    """`NearestQueries` or `NearestItems` with what it knows."""

    known: Conversions
    prior: np.ndarray
    facts: Mapping[str, Any]

    def shares(self, texts: Sequence[str]) -> np.ndarray:
        return shares_or_prior(self.known.shares(texts), self.prior)


def _nearest(known: Conversions, begun: float) -> FittedNearest:
    of_class = np.asarray(known.counts.sum(axis=0)).ravel()
    prior = (of_class / of_class.sum()).astype(np.float32)
    return FittedNearest(known, prior, {"train_seconds": round(time.perf_counter() - begun, 1)})


def shares_or_prior(scores: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Scores [n, C] divided by their sum; the prior [C] where they are 0."""
    total = scores.sum(axis=1, keepdims=True)
    return np.where(total > 0, scores / np.where(total > 0, total, 1.0), prior).astype(np.float32)
