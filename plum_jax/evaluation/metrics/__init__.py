"""Retrieval metrics over the full catalogue, from ranked lists of items; models and baselines share this one path.

A hit is the item, never just its Semantic ID. Every mean is over users, beside its standard error.
"""

from plum_jax.evaluation.metrics.comparison import Difference, compare_per_user, paired_bootstrap
from plum_jax.evaluation.metrics.judge import Catalogue, ranking_metrics
from plum_jax.evaluation.metrics.ranking import NOT_FOUND, NOTHING, RankedItems, summarise, target_ranks

__all__ = [
    "NOTHING",
    "NOT_FOUND",
    "Catalogue",
    "Difference",
    "RankedItems",
    "compare_per_user",
    "paired_bootstrap",
    "ranking_metrics",
    "summarise",
    "target_ranks",
]
