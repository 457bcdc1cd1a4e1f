"""Two systems on the same users: what they differ by, how sure that is, and whether it could be chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from plum_jax.evaluation.metrics.ranking import NOT_FOUND, per_user_metrics

SAMPLES = 10_000
_AT_ONCE = 1 << 22  # counts in memory at a time
# Columns of the per-user ranks -> (prefix, suffix) of the metrics made of them, as in the evaluator's names.
RANKS = {"rank": ("", ""), "rank_unseen": ("", "_unseen"), "sid_rank": ("sid_", "")}


class Difference(NamedTuple):
    """Mean difference of two systems over the same users, with its bootstrap interval.

    Attributes:
      mean: first minus second.
      low, high: of the 95% percentile interval.
      p_value: two-sided: twice the share of draws on the other side of 0 (draws of 0 count for both sides), at most 1
        and never 0.
    """

    mean: float
    low: float
    high: float
    p_value: float

    def named(self, name: str) -> dict[str, float]:
        """As fields of a row: `name`, "<name>_low", "<name>_high"."""
        return {name: self.mean, f"{name}_low": self.low, f"{name}_high": self.high}


def paired_bootstrap(first: np.ndarray, second: np.ndarray, *, samples: int = SAMPLES, seed: int = 0) -> Difference:
    """`first` minus `second`, per-user values [U] of one metric for the same users, with a 95% interval.

    Users are drawn with replacement, the same draw for both systems, so what is easy or hard for both cancels.
    """
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"expected values of the same users, got shapes {first.shape} and {second.shape}")
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    # Users with equal differences are exchangeable, so a draw of users is a draw of how often each value comes: a
    # recall has three values, however many users there are.
    values, counts = np.unique(difference, return_counts=True)
    random = np.random.default_rng(seed)
    means = []
    step = max(1, _AT_ONCE // len(values))
    for start in range(0, samples, step):
        draws = random.multinomial(len(difference), counts / len(difference), size=min(step, samples - start))
        means.append(draws @ values / len(difference))
    drawn = np.concatenate(means)
    low, high = np.quantile(drawn, [0.025, 0.975])
    tiny = 1e-12 * np.abs(values).max()  # sums of the same numbers in another order are not exactly 0
    other_side = min((drawn <= tiny).sum(), (drawn >= -tiny).sum())
    p_value = min(1.0, 2.0 * (other_side + 1) / (samples + 1))
    return Difference(float(difference.mean()), float(low), float(high), float(p_value))


def compare_per_user(
    first: pl.DataFrame, second: pl.DataFrame, ks: Sequence[int], *, samples: int = SAMPLES, seed: int = 0
) -> list[dict[str, Any]]:
    """Every metric that two evaluations' per-user ranks give, first against second.

    Args:
      first, second: a row a user: "user_id", "target_item_id" and the ranks "rank", "rank_unseen", "sid_rank" (0 is
        first, null is not found), the last where a system has SIDs.
      ks: cut-offs, at most the length of both systems' lists.
      samples: draws of users.
      seed: of the draws.

    Returns:
      Rows with "metric", "first", "second" (means), "difference", "low", "high", "p_value" and "users".

    Raises:
      ValueError: not the same users, each once, or another target for one of them.
    """
    joined = _same_users(first, second)
    rows = []
    for column in (name for name in RANKS if name in first.columns and name in second.columns):
        prefix, suffix = RANKS[column]
        values = [
            per_user_metrics(joined[name].fill_null(NOT_FOUND).to_numpy(), ks, prefix, suffix)
            for name in (column, f"{column}_second")
        ]
        for metric, of_first in values[0].items():
            of_second = values[1][metric]
            found = paired_bootstrap(of_first, of_second, samples=samples, seed=seed)
            rows.append(
                {
                    "metric": metric,
                    "first": float(of_first.mean()),
                    "second": float(of_second.mean()),
                    "difference": found.mean,
                    **{name: getattr(found, name) for name in ("low", "high", "p_value")},
                    "users": joined.height,
                }
            )
    return rows


def _same_users(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    for name, frame in (("first", first), ("second", second)):
        if not frame.height or frame["user_id"].n_unique() != frame.height:
            raise ValueError(f"expected each user once in the {name} evaluation, got {frame.height} rows")
    joined = first.join(second, on="user_id", how="inner", suffix="_second", maintain_order="left")
    if not joined.height == first.height == second.height:
        raise ValueError(
            f"expected two evaluations of the same users, got {first.height} and {second.height}, of which "
            f"{joined.height} are in both: evaluate both on the same corpus, split and number of users"
        )
    other = joined.filter(pl.col("target_item_id") != pl.col("target_item_id_second"))
    if other.height:
        user, item, item_second = other.select("user_id", "target_item_id", "target_item_id_second").row(0)
        raise ValueError(
            f"the two evaluations look for different items, e.g. for user {user!r} {item!r} and {item_second!r}: "
            "evaluate both on the same split"
        )
    return joined
