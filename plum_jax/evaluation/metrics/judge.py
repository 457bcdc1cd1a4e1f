"""All metrics of ranked lists by name: the one list of names that models, baselines and records share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from plum_jax.evaluation.metrics.catalogue import Shown, coverage, effective_items, effective_vocabulary
from plum_jax.evaluation.metrics.diversity import embedding_diversity, sid_diversity
from plum_jax.evaluation.metrics.ranking import (
    RankedItems,
    check_lists,
    hit_counts,
    per_user_metrics,
    summarise,
    target_ranks,
)

DECILES = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
    """What metrics may know of the items.

    Attributes:
      num_items: N.
      cold_items: bool [N], items without training events, judged apart; None: not told apart.
      popularity: int [N], training events of each item, for hit rates by decile; None: without them.
      codes: int [N, L], Semantic IDs, for the diversity of lists; None: not measured.
      embeddings: float [N, D], for the same; None: not measured.
    """

    num_items: int
    cold_items: np.ndarray | None = None
    popularity: np.ndarray | None = None
    codes: np.ndarray | None = None
    embeddings: np.ndarray | None = None


def ranking_metrics(
    lists: RankedItems, targets: np.ndarray, ks: Sequence[int], catalogue: Catalogue
) -> dict[str, float]:
    """Metrics at each k, as the lists are and "_unseen" (seen items removed); "<name>_se" is a standard error.

    "users"; "recall@k", "ndcg@k", "mrr@k", "hits@k" (a count) of the target; with "cold_" in front, of targets without
    training events ("cold_users" of them), where there are any; with "decile_1_" (most popular) to "decile_10_" in
    front, of targets by the popularity of the item, at the largest k. "coverage@k", "effective_items@k" and
    "effective_vocabulary@k" of all lists together (`metrics.catalogue`); "sid_diversity@k" and "embedding_diversity@k"
    within a list (`metrics.diversity`).

    Args:
      lists: at least max(ks) wide.
      targets: int32 [U], the item each user took.
      ks: cut-offs.
      catalogue: of the items.

    Raises:
      ValueError: lists too short for the cut-offs, or not as many as there are targets.
    """
    metrics: dict[str, float] = {"users": len(targets)}
    cold = np.zeros(len(targets), bool) if catalogue.cold_items is None else catalogue.cold_items[targets]
    if cold.any():
        metrics["cold_users"] = int(cold.sum())
    deciles = _targets_by_decile(targets, catalogue.popularity)
    metrics |= {f"decile_{decile}_users": int(chosen.sum()) for decile, chosen in deciles.items()}
    for ranked, suffix in ((lists.items, ""), (lists.unseen, "_unseen")):
        check_lists(ranked, targets, ks)
        ranks = target_ranks(ranked, targets)
        metrics |= _of_targets(ranks, ks, "", suffix)
        if cold.any():
            metrics |= _of_targets(ranks[cold], ks, "cold_", suffix)
        for decile, chosen in deciles.items():
            metrics |= _hit_rate(ranks[chosen], max(ks), f"decile_{decile}_", suffix)
        for k in ks:
            metrics |= _of_lists(ranked, k, suffix, catalogue)
    return metrics


def popularity_deciles(popularity: np.ndarray) -> np.ndarray:
    """int8 [N]: 1 for the tenth of the items with the most training events ... 10; 0 for cold items, which have none.

    Items with equally many are in one decile, that of the first of them: none is set apart by its index.
    """
    warm = np.sort(popularity[popularity > 0])
    more_popular = len(warm) - np.searchsorted(warm, popularity, side="right")
    decile = 1 + DECILES * more_popular // max(1, len(warm))
    return np.where(popularity > 0, decile, 0).astype(np.int8)


def _targets_by_decile(targets: np.ndarray, popularity: np.ndarray | None) -> dict[int, np.ndarray]:
    """Decile -> bool [U], for those that have targets."""
    if popularity is None:
        return {}
    decile = popularity_deciles(popularity)[targets]
    return {int(d): decile == d for d in np.unique(decile[decile > 0])}


def _of_targets(ranks: np.ndarray, ks: Sequence[int], prefix: str, suffix: str) -> dict[str, float]:
    return summarise(per_user_metrics(ranks, ks, prefix, suffix)) | hit_counts(ranks, ks, prefix, suffix)


def _hit_rate(ranks: np.ndarray, k: int, prefix: str, suffix: str) -> dict[str, float]:
    name = f"{prefix}recall@{k}{suffix}"
    return summarise({name: (ranks < k).astype(np.float64)}) | hit_counts(ranks, [k], prefix, suffix)


def _of_lists(ranked: np.ndarray, k: int, suffix: str, catalogue: Catalogue) -> dict[str, float]:
    shown = Shown(ranked, k)
    estimates = {
        "coverage": coverage(shown, catalogue.num_items),
        "effective_items": effective_items(shown),
        "effective_vocabulary": effective_vocabulary(shown),
    }
    metrics = {f"{name}@{k}{suffix}": estimate.value for name, estimate in estimates.items()}
    metrics |= {f"{name}@{k}{suffix}_se": estimate.error for name, estimate in estimates.items()}
    per_user = {}
    if catalogue.codes is not None:
        per_user[f"sid_diversity@{k}{suffix}"] = sid_diversity(ranked, catalogue.codes, k)
    if catalogue.embeddings is not None:
        per_user[f"embedding_diversity@{k}{suffix}"] = embedding_diversity(ranked, catalogue.embeddings, k)
    # Lists of fewer than two items have no pair to speak of.
    measured = {name: values[np.isfinite(values)] for name, values in per_user.items()}
    return metrics | summarise({name: values for name, values in measured.items() if len(values)})
