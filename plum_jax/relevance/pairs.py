"""Pairs of a query and an item: those that raters judged, and others that a teacher is to judge."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from plum_jax import artifact
from plum_jax.corpus.features.text import embed_texts
from plum_jax.corpus.sources.judgements import JudgedQueries
from plum_jax.corpus.splits import FOLDS, TRAIN
from plum_jax.relevance.classes import OrderedClasses

NO_LABEL = -1
_BLOCK = 512  # queries whose cosines are in memory at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Attributes:
    query, item: int32 [n], numbers of `JudgedQueries`.
    label: int32 [n], class; `NO_LABEL`: nobody judged the pair.
    """

    query: np.ndarray
    item: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.query)

    def of(self, rows: np.ndarray) -> Pairs:
        """Some of them."""
        return Pairs(self.query[rows], self.item[rows], self.label[rows])

    def and_also(self, others: Pairs) -> Pairs:
        """These, and others behind them."""
        both = ((getattr(self, f.name), getattr(others, f.name)) for f in dataclasses.fields(self))
        return Pairs(*(np.concatenate(columns) for columns in both))

    @property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self.query, self.item, self.label)


def judged_pairs(judged: JudgedQueries, classes: OrderedClasses, fold: str) -> Pairs:
    """The pairs of the queries of "train", "validation" or "test", in the order of the queries' numbers.

    Raises:
      ValueError: none, or a grade outside of the scale.
    """
    wanted = TRAIN if fold == "train" else FOLDS[fold]
    rows = np.flatnonzero(judged.fold[judged.query] == wanted)
    if not len(rows):
        raise ValueError(f"expected judged pairs of fold {fold!r}, got none")
    return Pairs(judged.query[rows], judged.item[rows], classes.of(judged.grade[rows]))


@dataclasses.dataclass(frozen=True)
class NearPairs:
    """Unlabelled pairs in the place of a search log: training queries and items that a cheap search would show.

    Of each training query the `nearest` items by the cosine of text vectors (wordllama's) that no rater judged with it,
    and `per_query` of these drawn at random. Queries of validation and test have no part in it.

    Attributes:
      per_query: pairs of each query.
      nearest: items that they are drawn from.
      dim: of the text vectors.
      seed: of the draw, the same for all seeds of a study, so that a teacher judges the pairs once.
    """

    per_query: int = 4
    nearest: int = 50
    dim: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.per_query <= self.nearest:
            raise ValueError(f"expected 1 <= per_query <= nearest, got {self}")

    def of(self, judged: JudgedQueries) -> Pairs:
        """In the order of the queries' numbers; fewer of a query where there are fewer items."""
        random, train = np.random.default_rng(self.seed), np.flatnonzero(judged.fold == TRAIN)
        items = embed_texts(judged.texts, self.dim, "items")
        texts = embed_texts([judged.queries[number] for number in train], self.dim, "queries")
        start, end = (np.searchsorted(judged.query, train, side=side) for side in ("left", "right"))
        most = min(len(items), self.nearest + int((end - start).max(initial=0)))
        queries, found = [], []
        for first in range(0, len(train), _BLOCK):
            cosine = texts[first : first + _BLOCK] @ items.T
            near = np.argpartition(-cosine, most - 1, axis=1)[:, :most]
            near = np.take_along_axis(near, np.argsort(-np.take_along_axis(cosine, near, 1), axis=1, kind="stable"), 1)
            for place, of_query in enumerate(near, start=first):
                new = of_query[~np.isin(of_query, judged.item[start[place] : end[place]])][: self.nearest]
                drawn = random.permutation(new)[: self.per_query]
                queries.append(np.full(len(drawn), train[place]))
                found.append(drawn)
        query, item = (np.concatenate(columns).astype(np.int32) for columns in (queries, found))
        return Pairs(query, item, np.full(len(query), NO_LABEL, np.int32))


@dataclasses.dataclass(frozen=True, eq=False)
class RelevanceData:
    """Attributes:
    judged: queries, items, grades.
    classes: of the grades.
    unlabelled: pairs that nobody judged.
    """

    judged: JudgedQueries
    classes: OrderedClasses
    unlabelled: Pairs

    @functools.cached_property
    def train(self) -> Pairs:
        """Judged pairs of training queries."""
        return judged_pairs(self.judged, self.classes, "train")

    def pairs(self, of: str) -> Pairs:
        """Those of "unlabelled" or of a fold."""
        if of == "unlabelled":
            return self.unlabelled
        return self.train if of == "train" else judged_pairs(self.judged, self.classes, of)
