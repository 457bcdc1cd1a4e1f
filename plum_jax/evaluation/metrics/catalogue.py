"""What all users' lists together show of the catalogue: how much of it, and how evenly.

The standard errors are closed forms, good to a factor of 2 on Zipf-like lists (the tests draw users anew to see): such
counts are biased for few users besides, so compare systems on the same users only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from plum_jax.evaluation.metrics.ranking import NOTHING

COVERED_SHARE = 0.95  # of what is shown: PLUM's Table 2


class Estimate(NamedTuple):
    """A figure and its standard error over users (NaN where there is one user only)."""

    value: float
    error: float


class Shown:
    """The first `k` items of every user's list, counted.

    Attributes:
      num_users: U.
      user: int64 [E], who is shown each of the E entries; an entry is one item in one list.
      entry: int64 [E], the place of the entry's item in `counts`.
      counts: int64 [S], in how many lists each of the S items shown is.
    """

    def __init__(self, ranked: np.ndarray, k: int) -> None:
        first = ranked[:, :k]
        self.num_users = len(first)
        self.user, place = np.nonzero(first != NOTHING)
        _, self.entry, self.counts = np.unique(first[self.user, place], return_inverse=True, return_counts=True)

    def per_user(self, values: np.ndarray) -> np.ndarray:
        """float64 [U]: sum over each user's entries of values [E]."""
        return np.bincount(self.user, weights=values, minlength=self.num_users)


def coverage(shown: Shown, num_items: int) -> Estimate:
    """Share of the catalogue that is in somebody's list; its error by the jackknife over users.

    Without a user the count falls by the items that nobody else is shown, so the jackknife needs no second pass.
    """
    alone = shown.per_user(shown.counts[shown.entry] == 1)
    users = shown.num_users
    error = np.sqrt((users - 1) / users * ((alone - alone.mean()) ** 2).sum()) if users > 1 else np.nan
    return Estimate(len(shown.counts) / num_items, float(error) / num_items)


def effective_items(shown: Shown) -> Estimate:
    """exp of the entropy of what is shown: the number of items that, shown evenly, would be as varied.

    Hill's number of order 1 (Hill 1973, "Diversity and evenness"); all items evenly give N, one item alone gives 1. Its
    error is the delta method's: a user moves the entropy by how surprising the user's items are.
    """
    if not len(shown.counts):
        return Estimate(0.0, float("nan"))
    surprise = -np.log(shown.counts / shown.counts.sum())
    entropy = float((shown.counts * surprise).sum() / shown.counts.sum())
    lengths = shown.per_user(np.ones(len(shown.user)))
    influence = (shown.per_user(surprise[shown.entry]) - entropy * lengths) / lengths.mean()
    users = shown.num_users
    error = influence.std(ddof=1) / np.sqrt(users) if users > 1 else np.nan
    return Estimate(float(np.exp(entropy)), float(np.exp(entropy) * error))


def effective_vocabulary(shown: Shown) -> Estimate:
    """The fewest items that make 95% of what is shown (PLUM, Table 2: "unique videos covering 95% of impressions").

    Its error is that of a quantile: the spread of the users' shares of these items, over what the last of them covers.
    """
    if not len(shown.counts):
        return Estimate(0.0, float("nan"))
    order = np.argsort(-shown.counts, kind="stable")
    total = np.cumsum(shown.counts[order])
    # Rounded down by a hair: .95 has no exact double, and exactly 95% is enough.
    last = int(np.searchsorted(total, COVERED_SHARE * total[-1] * (1 - 1e-12)))
    if shown.num_users == 1:
        return Estimate(last + 1.0, float("nan"))
    among = np.zeros(len(order), bool)
    among[order[: last + 1]] = True
    covered = shown.per_user(among[shown.entry]) - total[last] / total[-1] * shown.per_user(np.ones(len(shown.user)))
    users = shown.num_users
    error = covered.std(ddof=1) * np.sqrt(users) / shown.counts[order[last]]
    return Estimate(last + 1.0, float(error))
