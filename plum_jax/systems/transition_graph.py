"""Few hops from the last items in the graph of transitions, the most alike first: no training (arXiv 2605.07125)."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import scipy.sparse
from tqdm import tqdm

from plum_jax import artifact
from plum_jax.corpus.features.block import normalised
from plum_jax.corpus.splits import EvaluationSet, Split
from plum_jax.evaluation.metrics import NOTHING, RankedItems
from plum_jax.stages import Stages
from plum_jax.systems.training_free import TrainingFree, top_columns
from plum_jax.systems.unit_features import side_by_side

_USER_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class TransitionGraph:
    """What follows the last items of a history in others' training histories, the most alike first.

    An edge i -> j is as heavy as j directly follows i in training histories. From each of the last `sources` items, an
    item at h hops (h at most `hops`, the fewest) scores

        likeness of content + edge_weight * log(1 + weight) / (the greatest such of that source) - hop_cost * (h - 1),

    the likeness being the cosine of the run's item features (0 where it has none); an item counts by its best source,
    each older one at a further `source_cost`. Who has no edge is given what is popular, which also fills lists.

    Deviation: the paper gives each ring and source a fixed number of the ten places; here costs decide, so that a list
    may have any length.

    Attributes:
      sources: last items of a history that are started from.
      hops: rings around each.
      edge_weight, hop_cost, source_cost: see above.
    """

    sources: int = 3
    hops: int = 2
    edge_weight: float = 1.0
    hop_cost: float = 0.5
    source_cost: float = 0.2

    def fit(self, stages: Stages, name: str) -> TrainingFree:
        """There is nothing to train."""
        features = None
        if stages.data.feature_builders:
            features = normalised(side_by_side(stages.features))
        return TrainingFree(_OnFeatures(self, features), stages.split)


@dataclasses.dataclass(frozen=True, eq=False)
class _OnFeatures:
    """The configuration with the features [N, F] of a run, rows of length one."""

    config: TransitionGraph
    features: np.ndarray | None

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self.config, *([] if self.features is None else [self.features]))

    def recommend(self, split: Split, evaluation: EvaluationSet, k: int) -> RankedItems:
        """The first `k` items for each user; equal scores go to the more popular item."""
        popularity = split.item_popularity
        order = np.argsort(-popularity, kind="stable")
        # Below every candidate, in the order of popularity.
        floor = np.empty(len(order), np.float32)
        floor[order] = -1e3 - np.arange(len(order), dtype=np.float32)
        graph, place, lists = transitions(split), np.argsort(order), []
        starts = range(0, len(evaluation), _USER_BLOCK)
        for start in tqdm(starts, desc="transition graph", unit=" blocks", disable=len(starts) < 8):
            rows = range(start, min(start + _USER_BLOCK, len(evaluation)))
            histories = [evaluation.history(row) for row in rows]
            scores = np.maximum(self._scores(graph, histories), floor)[:, order]
            kept = top_columns(scores, k)
            for row, history in enumerate(histories):
                scores[row, place[history]] = -np.inf
            lists.append((kept, top_columns(scores, k)))
        names = np.append(order, NOTHING).astype(np.int32)  # column -1 is no item
        return RankedItems(*(names[np.concatenate(parts)] for parts in zip(*lists, strict=True)))

    def _scores(self, graph: scipy.sparse.csr_array, histories: list[np.ndarray]) -> np.ndarray:
        """float32 [U, N], -inf where an item is too far from all sources."""
        best = np.full((len(histories), graph.shape[0]), -np.inf, np.float32)
        for number in range(self.config.sources):
            rows = np.array([row for row, history in enumerate(histories) if len(history) > number], np.int64)
            if len(rows):
                source = np.array([histories[row][-1 - number] for row in rows])
                found = self._from(graph, source) - np.float32(number * self.config.source_cost)
                best[rows] = np.maximum(best[rows], found)
        return best

    def _from(self, graph: scipy.sparse.csr_array, source: np.ndarray) -> np.ndarray:
        """float32 [n, N]: what an item is worth from each source."""
        config, edges = self.config, graph[source]
        weight = np.log1p(edges.toarray())
        weight /= np.maximum(weight.max(axis=1, keepdims=True), 1e-12)
        likeness = 0.0 if self.features is None else self.features[source] @ self.features.T
        scores = np.full(weight.shape, -np.inf, np.float32)
        reached = edges.astype(bool).astype(np.float32)
        steps = graph.astype(bool).astype(np.float32)
        for hop in range(config.hops):
            fresh = (reached.toarray() > 0) & (scores == -np.inf)
            worth = likeness + config.edge_weight * weight - config.hop_cost * hop
            scores = np.where(fresh, worth, scores).astype(np.float32)
            reached = reached @ steps
        return scores


def transitions(split: Split) -> scipy.sparse.csr_array:
    """float32 [N, N]: how often the second item directly follows the first in a training history."""
    events = split.training_events()
    split.check_no_leak(events, used_by="transition graph")
    user, item = events["user"].to_numpy(), events["item"].to_numpy()
    same = user[1:] == user[:-1]
    first, second = item[:-1][same], item[1:][same]
    shape = (split.corpus.num_items, split.corpus.num_items)
    graph = scipy.sparse.coo_array((np.ones(len(first), np.float32), (first, second)), shape=shape).tocsr()
    graph.setdiag(0)
    graph.eliminate_zeros()
    return graph
