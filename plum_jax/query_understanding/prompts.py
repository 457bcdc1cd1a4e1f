"""Prompts: a query, and behind it in words the categories that evidence speaks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import scipy.sparse

from plum_jax.query_understanding.log import QueryLog
from plum_jax.query_understanding.similar import Conversions, SimilarityIndex

NOTHING = "none"
TENTHS = 10


class Evidence(Protocol):
    """A frozen dataclass, bound in gin: `Behaviour`, `Catalogue`."""

    @property
    def most(self) -> int:
        """Categories that a prompt names at most."""

    def index(self, log: QueryLog) -> SimilarityIndex:
        """Of the texts that speak for categories, of queries or items; no event is known to it."""

    def counts(self, log: QueryLog, events: np.ndarray) -> scipy.sparse.csr_array:
        """float32 [known, C], how much each of them speaks for each class; of all events int [E] by these alone."""


@dataclasses.dataclass(frozen=True, eq=False)
class Prompts:
    """Queries to prompts: "opi shatter : 7 nail polish, 2 top coats ; 5 nail polish", shares in tenths, of each
    evidence what it says most; the query alone where there is no evidence.

    Attributes:
      evidence: what is said, in this order.
      known: of each evidence.
      names: of the classes.
    """

    evidence: tuple[Evidence, ...]
    known: tuple[Conversions, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, evidence: Sequence[Evidence], log: QueryLog) -> Prompts:
        """Prompts that know all training events, as in use."""
        known = tuple(Conversions(one.index(log), one.counts(log, log.training_events)) for one in evidence)
        return cls(tuple(evidence), known, log.class_names)

    def by_events(self, log: QueryLog, events: np.ndarray) -> Prompts:
        """The same that know these training events int [E] alone."""
        counts = (one.counts(log, events) for one in self.evidence)
        known = (dataclasses.replace(one, counts=of_events) for one, of_events in zip(self.known, counts, strict=True))
        return dataclasses.replace(self, known=tuple(known))

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """A prompt for each query; evidence without a word for it says `NOTHING`."""
        if not self.evidence:
            return list(texts)
        both = zip(self.evidence, self.known, strict=True)
        said = [self._said(known.shares(texts), evidence.most) for evidence, known in both]
        return [f"{text} : {' ; '.join(of_text)}" for text, *of_text in zip(texts, *said, strict=True)]

    def _said(self, shares: np.ndarray, most: int) -> list[str]:
        best = np.argsort(-shares, axis=1, kind="stable")[:, :most]
        tenths = np.rint(np.take_along_axis(shares, best, axis=1) * TENTHS).astype(int)
        named = (
            ", ".join(f"{n} {self.names[one].lower()}" for one, n in zip(*row, strict=True) if n)
            for row in zip(best, tenths, strict=True)
        )
        return [words or NOTHING for words in named]


class TrainingPrompts(NamedTuple):
    """Attributes:
    query: int64 [R], numbers of the rows' queries.
    texts: R prompts.
    conversions: float32 [R, C], of the events that each stands for: what is to be said.
    """

    query: np.ndarray
    texts: list[str]
    conversions: scipy.sparse.csr_array


@dataclasses.dataclass(frozen=True)
class Deal:
    """How training events are dealt, so that no prompt knows what it is to say.

    The prompt of an event is made of the other parts' events: it never knows the event itself, nor, by what is missing,
    what the event was, as it would if that one alone were left out of the counts. A query whose events lie in several
    parts has a prompt for each.

    Attributes:
      parts: of the training events.
      seed: of the deal.
    """

    parts: int = 5
    seed: int = 0

    def training_prompts(self, log: QueryLog, prompts: Prompts) -> TrainingPrompts:
        """`prompts` that do not know the events that they are of; without evidence each query once."""
        events, learnt = log.training_events, log.learnt_queries
        if not prompts.evidence:
            return TrainingPrompts(learnt, [log.texts[query] for query in learnt], log.conversions[learnt])
        part = np.random.default_rng(self.seed).integers(self.parts, size=len(events))
        queries, texts, conversions = [], [], []
        for number in range(self.parts):
            own = log.counts(events[part == number])
            asked = np.flatnonzero(np.diff(own.indptr))
            knows_others = prompts.by_events(log, events[part != number])
            queries.append(asked)
            texts += knows_others([log.texts[query] for query in asked])
            conversions.append(own[asked])
        return TrainingPrompts(np.concatenate(queries), texts, scipy.sparse.vstack(conversions).tocsr())
