"""Rankings of judged items: nDCG of graded relevance, and recall of the relevant ones."""

from __future__ import annotations

import numpy as np


def graded_ndcg(scores: np.ndarray, gains: np.ndarray, k: int) -> float:
    """DCG of the first k of some judged items over that of the best order (Järvelin & Kekäläinen 2002).

    An item's gain is divided by log2(1 + place), places from 1. Items with one score share the mean gain of their
    places, so that no order of the file decides.

    Args:
      scores, gains: float [n], of one query's items; gains are not negative.
      k: places that count.

    Returns:
      0..1; NaN where every gain is 0, for there is nothing to find.
    """
    if scores.shape != gains.shape or not len(gains) or (gains < 0).any():
        raise ValueError(f"expected as many scores as gains of at least 0, got {scores.shape} and {gains.shape}")
    discounts = np.where(np.arange(len(gains)) < k, 1.0 / np.log2(np.arange(len(gains)) + 2.0), 0.0)
    best = float(np.sort(gains)[::-1] @ discounts)
    if best == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    _, group, size = np.unique(-scores[order], return_inverse=True, return_counts=True)
    means = np.bincount(group, gains[order]) / size
    return float(means[group] @ discounts) / best


def gains_of(grades: np.ndarray, lowest: float) -> np.ndarray:
    """float64 [n], 2^(grade - lowest) - 1: nothing for the lowest grade."""
    return np.exp2(grades.astype(np.float64) - lowest) - 1.0


def ndcg_of_queries(query: np.ndarray, scores: np.ndarray, gains: np.ndarray, k: int) -> np.ndarray:
    """float64 [Q], `graded_ndcg` of each query, in the order of their numbers.

    Args:
      query: int [n], of each pair, rising.
      scores, gains: float [n].
      k: places that count.
    """
    bounds = np.flatnonzero(np.diff(query)) + 1
    parts = zip(np.split(scores, bounds), np.split(gains, bounds), strict=True)
    return np.array([graded_ndcg(of_query, of_items, k) for of_query, of_items in parts])


def recall_of_relevant(ranked: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """The share of relevant items int [R] among the first k of a list int [K], K at least k; NaN for none."""
    if len(ranked) < k:
        raise ValueError(f"expected a list of at least {k} items, got {len(ranked)}")
    if not len(relevant):
        return float("nan")
    return len(set(ranked[:k].tolist()) & set(relevant.tolist())) / len(relevant)
