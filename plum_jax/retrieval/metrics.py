"""Retrieval metrics over the full catalogue, from ranked lists of items; models and baselines share this one path.

A hit is the item, never just its Semantic ID. All figures are means over users with the standard error of that mean.
"""

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


class Difference(NamedTuple):
    """Mean difference of two systems over the same users, with its 95% bootstrap interval."""

    mean: float
    low: float
    high: float


def target_ranks(ranked: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Place (int32 [U], 0 is first) of each target in its row of `ranked` [U, K]; `NOT_FOUND` where it is not there."""
    hits = (ranked == targets[:, None]) & (targets[:, None] != NOTHING)
    return np.where(hits.any(axis=1), hits.argmax(axis=1), NOT_FOUND).astype(np.int32)


def per_user_metrics(ranks: np.ndarray, ks: Sequence[int], prefix: str = "", suffix: str = "") -> dict[str, np.ndarray]:
    """Recall@k and NDCG@k of each user, float64 [U], of one target each: NDCG is 1 / log2(rank + 2) of a hit."""
    gains = 1.0 / np.log2(ranks.astype(np.float64) + 2.0)
    metrics = {}
    for k in ks:
        hit = ranks < k
        metrics[f"{prefix}recall@{k}{suffix}"] = hit.astype(np.float64)
        metrics[f"{prefix}ndcg@{k}{suffix}"] = np.where(hit, gains, 0.0)
    return metrics


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


def coverage(ranked: np.ndarray, k: int, num_items: int) -> float:
    """Share of the catalogue that is in the first `k` of somebody's list."""
    shown = np.unique(ranked[:, :k])
    return float((shown != NOTHING).sum() / num_items)


def ranking_metrics(
    lists: RankedItems,
    targets: np.ndarray,
    ks: Sequence[int],
    num_items: int,
    cold_items: np.ndarray | None = None,
) -> dict[str, float]:
    """Recall, NDCG and coverage at each k, as they are and "_unseen" (seen items removed), with standard errors.

    Recall and NDCG of targets that no training event has, in front of them "cold_", are there where such targets are;
    "cold_users" says how many.

    Args:
      lists: at least max(ks) wide.
      targets: int32 [U], the item each user took.
      ks: cut-offs.
      num_items: size of the catalogue.
      cold_items: bool [num_items], items without training events.

    Raises:
      ValueError: lists too short for the cut-offs, or not as many as there are targets.
    """
    metrics: dict[str, float] = {}
    cold = np.zeros(len(targets), bool) if cold_items is None else cold_items[targets]
    for ranked, suffix in ((lists.items, ""), (lists.unseen, "_unseen")):
        check_lists(ranked, targets, ks)
        ranks = target_ranks(ranked, targets)
        metrics |= summarise(per_user_metrics(ranks, ks, suffix=suffix))
        metrics |= {f"coverage@{k}{suffix}": coverage(ranked, k, num_items) for k in ks}
        if cold.any():
            metrics |= summarise(per_user_metrics(ranks[cold], ks, prefix="cold_", suffix=suffix))
    return metrics | ({"cold_users": int(cold.sum())} if cold.any() else {})


def check_lists(ranked: np.ndarray, targets: np.ndarray, ks: Sequence[int]) -> None:
    """Refuses lists that would understate a metric in silence."""
    if ranked.ndim != 2 or len(ranked) != len(targets) or ranked.shape[1] < max(ks):
        raise ValueError(f"expected lists [{len(targets)}, at least {max(ks)}] for ks {tuple(ks)}, got {ranked.shape}")


def paired_bootstrap(first: np.ndarray, second: np.ndarray, *, samples: int = 2000, seed: int = 0) -> Difference:
    """`first` minus `second`, per-user values [U] of one metric for the same users, with a 95% interval.

    Users are drawn with replacement, the same draw for both systems, so what is easy or hard for both cancels.
    """
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"expected values of the same users, got shapes {first.shape} and {second.shape}")
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    # Users with equal differences are exchangeable, so a draw of users is a draw of how often each value comes.
    values, counts = np.unique(difference, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(difference), counts / len(difference), size=samples)
    means = draws @ values / len(difference)
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(float(difference.mean()), float(low), float(high))
