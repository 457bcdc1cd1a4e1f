"""Pairs of queries that behaviour gives: another name of the same, a broader one, and what is taken instead."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple, get_args

import numpy as np

from plum_jax.corpus.taxonomy import NONE
from plum_jax.query_understanding.log import QueryLog

Kind = Literal["synonym", "broader", "substitute"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Pairs(NamedTuple):
    """Attributes:
    kind: int8 [P], place in `KINDS`.
    query, target: int64 [P], numbers of queries.
    """

    kind: np.ndarray
    query: np.ndarray
    target: np.ndarray


@dataclasses.dataclass(frozen=True)
class RewritePairs:
    """Which pairs a rewriter learns from, of training events alone. A target is a query that several events have.

    "synonym": both queries were followed by the same item, and stand for one category (`nodes`). "broader": the same
    item, and the target's category is an ancestor of the query's. "substitute": the two stand one after the other in a
    user's history, for different items of one class.

    Attributes:
      purity: share of a query's conversions that its category must have.
      least: training events of a target.
      draws: partners of each event that are drawn from those with the same item.
      most: pairs of a kind, drawn evenly.
      seed: of the draws.
    """

    purity: float = 0.8
    least: int = 2
    draws: int = 4
    most: int = 20_000
    seed: int = 0

    def of(self, log: QueryLog) -> Pairs:
        """Each pair once.

        Raises:
          ValueError: there is none.
        """
        random, events, node = np.random.default_rng(self.seed), log.training_events, nodes(log, self.purity)
        query, other = self._same_item(log, events, random)
        together = log.taxonomy.common(np.maximum(node[query], 0), np.maximum(node[other], 0))
        known = (node[query] != NONE) & (node[other] != NONE)
        same = known & (node[query] == node[other])
        above = known & (together == node[other]) & ~same
        found = {"synonym": (query[same], other[same]), "broader": (query[above], other[above])}
        found["substitute"] = _one_after_the_other(log, events)
        kinds, queries, targets = [], [], []
        for number, kind in enumerate(KINDS):
            pairs = np.unique(np.stack(found[kind], axis=1), axis=0)
            pairs = pairs[(pairs[:, 0] != pairs[:, 1]) & (log.frequency[pairs[:, 1]] >= self.least)]
            pairs = random.permutation(pairs)[: self.most]
            kinds.append(np.full(len(pairs), number, np.int8))
            queries.append(pairs[:, 0])
            targets.append(pairs[:, 1])
        made = Pairs(*(np.concatenate(parts) for parts in (kinds, queries, targets)))
        if not len(made.kind):
            raise ValueError(
                f"no two training queries lead to one item, with {self.least} events of one of them at least: "
                "there is nothing to learn rewrites from"
            )
        return made

    def _same_item(
        self, log: QueryLog, events: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Queries of events, and of others drawn from those with the same item."""
        item = log.split.corpus.events["item"].to_numpy()[events]
        order = np.argsort(item, kind="stable")
        of_item = np.bincount(item)
        first = np.cumsum(of_item) - of_item
        drawn = (random.random((self.draws, len(events))) * of_item[item]).astype(np.int64) + first[item]
        partner = events[order[drawn]]
        return np.tile(log.query[events], self.draws).astype(np.int64), log.query[partner].ravel().astype(np.int64)


def _one_after_the_other(log: QueryLog, events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    user, item = (log.split.corpus.events[name].to_numpy()[events] for name in ("user", "item"))
    kind, query = log.class_of_event[events], log.query[events].astype(np.int64)
    pair = (user[1:] == user[:-1]) & (item[1:] != item[:-1]) & (kind[1:] == kind[:-1])
    return query[:-1][pair], query[1:][pair]


def nodes(log: QueryLog, purity: float) -> np.ndarray:
    """int32 [Q]: the deepest category that has the share `purity` of a query's training conversions, its own and those
    below it; `NONE` where there is none, and for new queries.
    """
    lines = log.taxonomy.lines[log.classes]
    found = np.full(len(log.texts), NONE, np.int32)
    total = np.asarray(log.conversions.sum(axis=1)).ravel()
    for depth in range(lines.shape[1]):  # deeper ones later, in place of those above
        there = lines[:, depth] != NONE
        groups, of_class = np.unique(lines[there, depth], return_inverse=True)
        into = np.zeros((log.num_classes, len(groups)), np.float32)
        into[np.flatnonzero(there), of_class] = 1.0
        counts = log.conversions @ into
        best = counts.argmax(axis=1)
        enough = (total > 0) & (counts.max(axis=1) >= purity * np.maximum(total, 1))
        found = np.where(enough, groups[best], found).astype(np.int32)
    return found
