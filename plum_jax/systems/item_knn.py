"""Item-kNN: what those who took your items took too. Old, fast, and still ahead of many a neural model."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse
from tqdm import tqdm

from plum_jax.corpus.splits import EvaluationSet, Split
from plum_jax.evaluation.metrics import NOTHING, RankedItems
from plum_jax.stages import Stages
from plum_jax.systems.training_free import TrainingFree, top_columns

_ITEM_BLOCK = 2048
_USER_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class ItemKnn:
    """Cosine of co-occurrence over training histories, summed over the user's own items.

    The similarity of items i and j is `|users of both| / (sqrt(|users of i| |users of j|) + shrinkage)`.

    Attributes:
      neighbours: similar items kept for each item; None keeps all.
      shrinkage: pulls down pairs seen by few users.
      history_length: the score sums over the last so many items of a history; None for all.
    """

    neighbours: int | None = 200
    shrinkage: float = 10.0
    history_length: int | None = None

    def fit(self, stages: Stages, name: str) -> TrainingFree:
        """There is nothing to train."""
        return TrainingFree(self, stages.split)

    def recommend(self, split: Split, evaluation: EvaluationSet, k: int) -> RankedItems:
        """The first `k` items for each user of the evaluation set; equal scores go to the more popular item."""
        popularity = split.item_popularity
        order = np.argsort(-popularity, kind="stable").astype(np.int32)
        similarity = self.similarity(split)[:, order]
        place = np.argsort(order)  # column of each item
        blocks = []
        starts = range(0, len(evaluation), _USER_BLOCK)
        for start in tqdm(starts, desc="item-kNN: scores", unit=" blocks", disable=len(starts) < 8):
            stop = min(start + _USER_BLOCK, len(evaluation))
            histories = _history_matrix(evaluation, start, stop, len(order), self.history_length)
            scores = (histories @ similarity).toarray()
            items = top_columns(scores, k)
            seen = _history_matrix(evaluation, start, stop, len(order), None).tocoo()
            scores[seen.row, place[seen.col]] = -np.inf
            blocks.append((items, top_columns(scores, k)))
        names = np.append(order, np.int32(NOTHING))  # column -1 is no item
        return RankedItems(*(names[np.concatenate(lists)] for lists in zip(*blocks, strict=True)))

    def similarity(self, split: Split) -> scipy.sparse.csr_array:
        """float32 [N, N], row i: the similarity of item i to its `neighbours` nearest other items."""
        events = split.training_events().select("user", "item").unique(maintain_order=True)
        shape = (split.corpus.num_users, split.corpus.num_items)
        user, item = events["user"].to_numpy(), events["item"].to_numpy()
        taken = scipy.sparse.csr_array((np.ones(len(user), np.float32), (user, item)), shape=shape)
        norm = np.sqrt(np.bincount(item, minlength=shape[1])).astype(np.float32)
        by_item = taken.T.tocsr()
        blocks = []
        starts = range(0, shape[1], _ITEM_BLOCK)
        for start in tqdm(starts, desc="item-kNN: similarities", unit=" blocks", disable=len(starts) < 8):
            together = (by_item[start : start + _ITEM_BLOCK] @ taken).tocoo()
            first, second = together.row + start, together.col
            value = together.data / (norm[first] * norm[second] + np.float32(self.shrinkage))
            other = first != second
            blocks.append(_nearest(first[other] - start, second[other], value[other], self.neighbours, len(norm)))
        counts = np.concatenate([block[0] for block in blocks])[: shape[1]]
        indices, data = (np.concatenate([block[part] for block in blocks]) for part in (1, 2))
        return scipy.sparse.csr_array((data, indices, np.append(0, np.cumsum(counts))), shape=(shape[1], shape[1]))


def _nearest(
    row: np.ndarray, column: np.ndarray, value: np.ndarray, neighbours: int | None, num_items: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries of a block of rows, best first and at most `neighbours` a row: count of each row, columns, values."""
    order = np.lexsort((column, -value, row))
    counts = np.bincount(row, minlength=_ITEM_BLOCK)
    if neighbours is not None:
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        order = order[place < neighbours]
        counts = np.minimum(counts, neighbours)
    return counts, column[order], value[order]


def _history_matrix(
    evaluation: EvaluationSet, start: int, stop: int, num_items: int, last: int | None
) -> scipy.sparse.csr_array:
    """float32 [stop - start, N]: how often each item is among the last so many of each user's history."""
    histories = [evaluation.history(row) for row in range(start, stop)]
    if last is not None:
        histories = [history[max(0, len(history) - last) :] for history in histories]
    lengths = [len(history) for history in histories]
    items = np.concatenate(histories)
    row = np.repeat(np.arange(len(histories)), lengths)
    ones = np.ones(len(items), np.float32)
    return scipy.sparse.csr_array((ones, (row, items)), shape=(len(histories), num_items))
