"""Behaviour in the prompt: behind the query, the categories that queries like it have converted to most."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse

from plum_jax.query_understanding.log import QueryLog
from plum_jax.query_understanding.similar import ByWords, SimilarityIndex, SimilarQueries, converted

NOTHING = "none"
TENTHS = 10


class TrainingPrompts(NamedTuple):
    """Attributes:
    texts: R prompts.
    query: int64 [R], numbers of their queries.
    conversions: float32 [R, C], of the events that each stands for: what is to be said.
    """

    texts: list[str]
    query: np.ndarray
    conversions: scipy.sparse.csr_array


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """What a prompt says of behaviour: "opi shatter : 7 nail polish, 2 top coats", shares in tenths.

    For training, the events are dealt into parts, and the prompt of an event is made of the other parts' conversions:
    it never knows the event itself, nor, by what is missing, what the event was, as it would if that one alone were
    left out of the counts. A query whose events lie in several parts has a prompt for each.

    Attributes:
      similar: which queries count, and how much.
      most: categories at most.
      parts: of the training events.
      seed: of the deal.
    """

    similar: SimilarQueries = ByWords()
    most: int = 5
    parts: int = 5
    seed: int = 0

    def reader(self, log: QueryLog) -> BehaviourReader:
        """Prompts that know all training events, as in use."""
        learnt = log.learnt_queries
        index = self.similar.index([log.texts[query] for query in learnt])
        return BehaviourReader(self, index, log.conversions[learnt], log.class_names)

    def training_prompts(self, log: QueryLog) -> TrainingPrompts:
        """Prompts that do not know the events that they are of."""
        reader, learnt = self.reader(log), log.learnt_queries
        events = log.training_events
        part = np.random.default_rng(self.seed).integers(self.parts, size=len(events))
        texts, queries, conversions = [], [], []
        for number in range(self.parts):
            own, others = (log.counts(events[chosen]) for chosen in (part == number, part != number))
            asked = np.flatnonzero(np.diff(own.indptr))
            knows_others = dataclasses.replace(reader, counts=others[learnt])
            texts += knows_others.prompts([log.texts[query] for query in asked])
            queries.append(asked)
            conversions.append(own[asked])
        return TrainingPrompts(texts, np.concatenate(queries), scipy.sparse.vstack(conversions).tocsr())


@dataclasses.dataclass(frozen=True, eq=False)
class BehaviourReader:
    """Makes prompts of queries.

    Attributes:
      config: of the prompts.
      index: of the training queries.
      counts: float32 [known, C], their conversions.
      names: of the classes.
    """

    config: Behaviour
    index: SimilarityIndex
    counts: scipy.sparse.csr_array
    names: tuple[str, ...]

    def prompts(self, texts: Sequence[str]) -> list[str]:
        """A prompt for each query."""
        shares = converted(self.index, self.counts, texts)
        best = np.argsort(-shares, axis=1, kind="stable")[:, : self.config.most]
        tenths = np.rint(np.take_along_axis(shares, best, axis=1) * TENTHS).astype(int)
        return [self._said(text, *row) for text, *row in zip(texts, best, tenths, strict=True)]

    def _said(self, text: str, classes: np.ndarray, tenths: np.ndarray) -> str:
        named = [f"{n} {self.names[one].lower()}" for one, n in zip(classes, tenths, strict=True) if n]
        return f"{text} : {', '.join(named) or NOTHING}"
