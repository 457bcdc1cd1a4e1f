"""Where each user's target stands in the list, and what follows from that: recall, NDCG, reciprocal rank, hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

NOT_FOUND = np.iinfo(np.int32).max  # the rank of a target that is not in its list
NOTHING = -1  # fills lists that end early


class RankedItems(NamedTuple):
    """The same recommendations twice: as they are, and with the items that the user has seen removed.

    Attributes:
      items: int32 `[U, K]` item indexes, best first, no item twice in a row, -1 where a list has ended.
      unseen: int32 `[U, K]`, the same of items not in the user's history.
    """

    items: np.ndarray
    unseen: np.ndarray


def target_ranks(ranked: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Place (int32 [U], 0 is first) of each target in its row of `ranked` [U, K]; `NOT_FOUND` where it is not there."""
    hits = (ranked == targets[:, None]) & (targets[:, None] != NOTHING)
    return np.where(hits.any(axis=1), hits.argmax(axis=1), NOT_FOUND).astype(np.int32)


def per_user_metrics(ranks: np.ndarray, ks: Sequence[int], prefix: str = "", suffix: str = "") -> dict[str, np.ndarray]:
    """Recall@k, NDCG@k and MRR@k of each user, float64 [U], of one target each.

    With one target a recall is the hit rate, an NDCG is 1 / log2(rank + 2) of a hit, a reciprocal rank 1 / (rank + 1).
    """
    places = ranks.astype(np.float64)
    metrics = {}
    for k in ks:
        hit = ranks < k
        metrics[f"{prefix}recall@{k}{suffix}"] = hit.astype(np.float64)
        metrics[f"{prefix}ndcg@{k}{suffix}"] = np.where(hit, 1.0 / np.log2(places + 2.0), 0.0)
        metrics[f"{prefix}mrr@{k}{suffix}"] = np.where(hit, 1.0 / (places + 1.0), 0.0)
    return metrics


def hit_counts(ranks: np.ndarray, ks: Sequence[int], prefix: str = "", suffix: str = "") -> dict[str, int]:
    """Users whose target is among the first k, as a count: "hits@k"."""
    return {f"{prefix}hits@{k}{suffix}": int((ranks < k).sum()) for k in ks}


def summarise(per_user: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean over users, and "<name>_se": its standard error (sample deviation / sqrt(U)).

    Raises:
      ValueError: no users.
    """
    summary = {}
    for name, values in per_user.items():
        if len(values) == 0:
            raise ValueError(f"expected at least one user to average {name} over, got none")
        summary[name] = float(values.mean())
        # One user has no spread to speak of: missing is missing, never 0.
        summary[f"{name}_se"] = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return summary


def check_lists(ranked: np.ndarray, targets: np.ndarray, ks: Sequence[int]) -> None:
    """Refuses lists that would understate a metric in silence."""
    if ranked.ndim != 2 or len(ranked) != len(targets) or ranked.shape[1] < max(ks):
        raise ValueError(f"expected lists [{len(targets)}, at least {max(ks)}] for ks {tuple(ks)}, got {ranked.shape}")
