"""Exact top-k equals sorting all scores, whatever the blocks; short catalogues end with -1."""

import numpy as np
import pytest

from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.exact_top_k import exact_top_k


def evaluation(histories):
    offsets = np.append(0, np.cumsum([len(history) for history in histories]))
    users = np.arange(len(histories), dtype=np.int32)
    items = np.concatenate(histories).astype(np.int32)
    return EvaluationSet("test", users, users, users.astype(np.int64), items, items.astype(np.int64), offsets)


@pytest.mark.parametrize(("k", "block"), [(3, 2), (5, 64), (12, 3)])
def test_lists_are_those_of_sorting_all_scores(k, block):
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 9, size) for size in (0, 4, 9, 1, 30)]
    # Whole numbers: ties, and no rounding.
    users, items = (rng.integers(-2, 3, (n, 4)).astype(np.float32) for n in (5, 9))
    lists, scores = exact_top_k(users, items, evaluation(histories), k, block)
    for row, history in enumerate(histories):
        products = items @ users[row]
        best = np.argsort(-products, kind="stable")[:k]
        assert lists.items[row].tolist() == [*best, *[-1] * (k - len(best))]
        unseen = [item for item in np.argsort(-products, kind="stable") if item not in history][:k]
        assert lists.unseen[row].tolist() == [*unseen, *[-1] * (k - len(unseen))]
        assert scores[row].tolist() == [*products[unseen], *[-np.inf] * (k - len(unseen))]
