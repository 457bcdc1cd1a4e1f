"""Searches as a feed: batches with items drawn as negatives, and the share of the hard ones at each step."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from plum_jax.feeds.array_batches import ArrayBatches, CompletedIterator
from plum_jax.feeds.batches import Batch
from plum_jax.systems.product_search.inputs import Queries, Searches


@dataclasses.dataclass(frozen=True)
class Negatives:
    """Uniform first, then hard ones (Etsy, arXiv 2306.04833, §4.4), in shares of the steps.

    The pool of a batch is its own items and `uniform` draws a search. Hard negatives are those of the pool with the
    highest scores at that step, so that nothing is mined beside training. Their share of the loss is 0 for the first
    `warmup` of the steps, and then rises linearly to `hard` at the last one; that of the uniform draws is the rest.

    Attributes:
      uniform: draws a search, for all of its batch.
      warmup: share of the steps with uniform negatives alone.
      hard: share of the hard negatives at the end; 0: uniform ones alone, always.
    """

    uniform: int = 1
    warmup: float = 0.2
    hard: float = 0.8

    def __post_init__(self) -> None:
        if self.uniform < 1 or not (0 <= self.warmup < 1 and 0 <= self.hard <= 1):
            raise ValueError(
                f"expected a uniform draw at least, a warmup in [0, 1) and a share of hard ones in [0, 1], got {self}"
            )

    def hard_weight(self, step: int, steps: int) -> float:
        """At a step of so many, from 0."""
        done = step / max(steps - 1, 1)
        return self.hard * min(max((done - self.warmup) / (1 - self.warmup), 0.0), 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class LowerGrades:
    """Of each search the judged items of its query with a lower grade than its target has: hard negatives of people.

    Attributes:
      items: int32 [J], of all judged pairs.
      first, count: int64 [n], which of these are a search's.
    """

    items: np.ndarray
    first: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, query: np.ndarray, item: np.ndarray, grade: np.ndarray, rows: np.ndarray) -> LowerGrades:
        """Of judged pairs [J]; those at `rows` int [n] are the searches."""
        order = np.lexsort((grade, query))
        _, level = np.unique(grade, return_inverse=True)
        key = query.astype(np.int64) * (level.max() + 1) + level
        first = np.searchsorted(query[order], query[rows])
        return cls(item[order], first, np.searchsorted(key[order], key[rows]) - first)

    def in_place_of(self, drawn: np.ndarray, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """int32 [B, K], `drawn` for searches by row int [B], whose first draw is one of lower grade where there is."""
        place = self.first[rows] + random.integers(0, np.maximum(self.count[rows], 1))
        lower = np.where(self.count[rows] > 0, self.items[np.minimum(place, len(self.items) - 1)], drawn[:, 0])
        return np.concatenate([lower[:, None], drawn[:, 1:]], axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class SearchFeed:
    """Batches of searches (`Searches.columns`) with "target" [B] and "uniform" [B, K], items int32, the logs of how
    often each is expected in a pool, "target_log_count" [B] and "uniform_log_count" [B, K], and "hard_weight" [B].

    Attributes:
      rows: batches of "search".
      searches, queries: what they are.
      negatives: how they are drawn.
      candidates: int32, items that negatives are drawn from.
      steps: of the run.
      count: float64 [N], of each item among the targets.
      lower: what takes the place of each search's first uniform draw; None: nothing.
    """

    rows: ArrayBatches
    searches: Searches
    queries: Queries
    negatives: Negatives
    candidates: np.ndarray
    steps: int
    count: np.ndarray
    lower: LowerGrades | None = None

    @classmethod
    def of(
        cls,
        searches: Searches,
        queries: Queries,
        negatives: Negatives,
        candidates: np.ndarray,
        num_items: int,
        batch_size: int,
        seed: int,
    ) -> SearchFeed:
        """All searches, reshuffled each epoch; `steps` is one epoch's."""
        rows = ArrayBatches({"search": np.arange(len(searches))}, min(batch_size, len(searches)), seed)
        count = np.bincount(searches.target, minlength=num_items).astype(np.float64)
        return cls(rows, searches, queries, negatives, candidates, rows.steps_per_epoch, count)

    def make_iterator(self) -> CompletedIterator:
        """A fresh iterator at the start; it never ends."""
        return CompletedIterator(self.rows, self._completed)

    @functools.cached_property
    def log_count(self) -> np.ndarray:
        """float32 [N], log of how often each item is expected in a pool: as a target, and as a draw of candidates."""
        size = self.rows.batch_size
        expected = size * self.count / self.count.sum()
        expected[self.candidates] += size * self.negatives.uniform / len(self.candidates)
        return np.log(np.maximum(expected, 1e-9)).astype(np.float32)

    def _completed(self, number: int, chosen: Batch) -> Batch:
        rows = chosen["search"]
        random = np.random.default_rng([self.rows.seed, number, 1])
        uniform = random.choice(self.candidates, (len(rows), self.negatives.uniform)).astype(np.int32)
        if self.lower is not None:
            uniform = self.lower.in_place_of(uniform, rows, random)
        target, share = self.searches.target[rows], self.negatives.hard_weight(number, self.steps)
        return self.searches.columns(self.queries, rows) | {
            "target": target,
            "uniform": uniform,
            "target_log_count": self.log_count[target],
            "uniform_log_count": self.log_count[uniform],
            "hard_weight": np.full(len(rows), share, np.float32),
        }
