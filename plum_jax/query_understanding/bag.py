"""The fastText-like classifier, trained on conversions; and the student, the same network with a teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.sparse
from etils import epath

from plum_jax import artifact
from plum_jax.queries.words import KnownWords
from plum_jax.query_understanding.catalogue import Catalogue
from plum_jax.query_understanding.classifier import FittedClassifier
from plum_jax.query_understanding.log import QueryLog
from plum_jax.query_understanding.networks import BagConfig, BagNetwork
from plum_jax.query_understanding.training import (
    Columns,
    Lesson,
    NetworkClassifier,
    Schooling,
    of_conversions,
    trained,
)


@dataclasses.dataclass(frozen=True, eq=False)
class BagReader:
    """Queries to a bag's columns.

    Attributes:
      config: of the network.
      known: the words that it has a vector of.
    """

    config: BagConfig
    known: KnownWords

    def __call__(self, texts: Sequence[str]) -> Columns:
        return self.config.columns(texts, self.known)


@dataclasses.dataclass(frozen=True)
class BagClassifier:
    """The mean of vectors of words and of n-grams of letters, and a softmax.

    Attributes:
      network: sizes.
      schooling: how it is trained.
      catalogue: items whose texts are learnt as queries are; None: none.
    """

    network: BagConfig = BagConfig()
    schooling: Schooling = Schooling()
    catalogue: Catalogue | None = None

    def fit(self, log: QueryLog, directory: epath.Path) -> NetworkClassifier:
        """Learns what the training queries converted to, and what the texts of items stand under."""
        texts, conversions = [log.texts[query] for query in log.learnt_queries], log.conversions[log.learnt_queries]
        if self.catalogue is not None:
            texts += self.catalogue.texts(log)
            conversions = scipy.sparse.vstack([conversions, self.catalogue.classes(log)]).tocsr()
        reader = BagReader(self.network, KnownWords.of(texts, ()))
        lesson = of_conversions(reader(texts), conversions, log.fingerprint)
        network = BagNetwork(self.network, reader.known.size, log.num_classes)
        params, facts = trained(network, self.schooling, lesson, directory, described=self)
        return NetworkClassifier(network, params, reader, facts)


@dataclasses.dataclass(frozen=True)
class Student:
    """A bag that learns what a teacher says of all queries of training, and of the log's unlabelled ones.

    Attributes:
      network: sizes.
      schooling: how it is trained.
    """

    network: BagConfig = BagConfig()
    schooling: Schooling = Schooling()

    def learn(self, log: QueryLog, teacher: FittedClassifier, directory: epath.Path) -> NetworkClassifier:
        """Trains, or goes on, or reads what was trained."""
        learnt = [log.texts[query] for query in log.learnt_queries]
        texts = list(dict.fromkeys([*learnt, *log.unlabelled]))
        shares = teacher.shares(texts)
        weight = np.ones(len(texts), np.float32)
        weight[: len(learnt)] = np.sqrt(log.frequency[log.learnt_queries])  # as where conversions are learnt
        reader = BagReader(self.network, KnownWords.of(texts, ()))
        made_of = artifact.fingerprint(log.fingerprint, shares)
        lesson = Lesson(reader(texts), shares.astype(np.float16), weight, made_of)
        network = BagNetwork(self.network, reader.known.size, log.num_classes)
        params, facts = trained(network, self.schooling, lesson, directory, described=self)
        return NetworkClassifier(network, params, reader, {**facts, "taught_queries": len(texts)})
