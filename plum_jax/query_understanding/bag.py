"""The fastText-like classifier, trained on conversions, or on what a teacher says: then it is the student."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.query_understanding.classifier import Classifier
from plum_jax.query_understanding.log import QueryLog
from plum_jax.query_understanding.networks import BagConfig, BagNetwork
from plum_jax.query_understanding.training import Columns, Lesson, Schooling, Trained, of_conversions, trained
from plum_jax.queries.words import KnownWords


@dataclasses.dataclass(frozen=True)
class BagClassifier:
    """The mean of vectors of words and of n-grams of letters, and a softmax.

    Attributes:
      network: sizes.
      schooling: how it is trained.
      teacher: the classifier whose shares it learns, of all queries of training and of the log's unlabelled ones; None:
        it learns conversions. The teacher is trained where it is not yet.
    """

    network: BagConfig = BagConfig()
    schooling: Schooling = Schooling()
    teacher: Classifier | None = None

    def fit(self, log: QueryLog, directory: epath.Path) -> FittedBag:
        learnt = [log.texts[query] for query in log.learnt_queries]
        known = KnownWords.of(learnt, ())
        if self.teacher is None:
            columns = self.network.columns(learnt, known)
            lesson = of_conversions(columns, log.conversions[log.learnt_queries], log.fingerprint)
        else:
            lesson = self._of_teacher(log, directory, learnt, known)
        network = BagNetwork(self.network, known.size, log.num_classes)
        without = dataclasses.replace(self, teacher=None)  # its shares are in the lesson's fingerprint
        return FittedBag(self.network, known, trained(network, self.schooling, lesson, directory, described=without))

    def _of_teacher(self, log: QueryLog, directory: epath.Path, learnt: Sequence[str], known: KnownWords) -> Lesson:
        assert self.teacher is not None
        texts = list(dict.fromkeys([*learnt, *log.unlabelled]))
        shares = self.teacher.fit(log, directory.parent / f"{directory.name}_teacher").shares(texts)
        weight = np.ones(len(texts), np.float32)
        weight[: len(learnt)] = np.sqrt(log.frequency[log.learnt_queries])
        made_of = artifact.fingerprint(log.fingerprint, shares)
        return Lesson(self.network.columns(texts, known), shares.astype(np.float16), weight, made_of)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedBag:
    """A trained `BagClassifier`.

    Attributes:
      config: of its network.
      known: the words that it has a vector of.
      trained: its network.
    """

    config: BagConfig
    known: KnownWords
    trained: Trained

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.trained.facts

    def shares(self, texts: Sequence[str]) -> np.ndarray:
        return self.trained.shares(texts, self._columns)

    def _columns(self, texts: Sequence[str]) -> Columns:
        return self.config.columns(texts, self.known)
