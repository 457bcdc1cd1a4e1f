"""Two models that predict the labels of the same events: what they differ by, and how sure that is."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from plum_jax.evaluation.metrics.classification import (
    checked,
    delong_covariance,
    log_losses,
    placements,
    within_users,
)
from plum_jax.evaluation.metrics.comparison import Difference

DRAWS = 1000
_QUANTILE = 1.959963984540054  # of the normal, at .975


def delong_difference(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> Difference:
    """AUC of `first` minus that of `second`, scores [n] of the same events, with DeLong's interval and p-value.

    Events count as independent: where a user has many, take `user_bootstrap`.

    Raises:
      ValueError: one label only.
    """
    components = np.stack([placements(labels, scores) for scores in (first, second)])
    covariance = delong_covariance(labels, components)
    positive = np.asarray(labels) > 0.5
    mean = float(components[0, positive].mean() - components[1, positive].mean())
    error = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)))
    p_value = float(2 * norm.sf(abs(mean) / error)) if error > 0 else 1.0
    return Difference(mean, mean - _QUANTILE * error, mean + _QUANTILE * error, p_value)


def user_bootstrap(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, users: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Difference]:
    """ "auc", "gauc" and "log_loss" of `first` minus those of `second`, with 95% intervals over users.

    Users are drawn with replacement, each with all its events, the same draw for both models and all three figures.
    "gauc" is left out where no user has both labels.

    Args:
      labels: 0 or 1, [n].
      first, second: logits [n] of the same events.
      users: int [n].
      draws: of all users.
      seed: of the draws.

    Raises:
      ValueError: one label only.
    """
    pairs = [_Weighed(labels, scores, users) for scores in (first, second)]
    count = pairs[0].num_users
    random, drawn = np.random.default_rng(seed), []
    for _ in range(draws):
        times = np.bincount(random.integers(0, count, count), minlength=count).astype(np.float64)
        drawn.append(pairs[0].figures(times) - pairs[1].figures(times))
    once = np.ones(count)
    differences = pairs[0].figures(once) - pairs[1].figures(once)
    return {
        name: drawn_difference(float(differences[place]), np.asarray(drawn)[:, place])
        for place, name in enumerate(("auc", "gauc", "log_loss"))
        if np.isfinite(differences[place])
    }


class _Weighed:
    """Figures of one model as a function of how often each user is drawn."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> None:
        positive = checked(labels, scores)
        present, user = np.unique(users, return_inverse=True)
        self.num_users = len(present)
        order = np.argsort(scores, kind="stable")
        ordered = np.asarray(scores)[order]
        ones = positive[order]
        self._one_users, self._zero_users = user[order][ones], user[order][~ones]
        # Zeros that stand below each one, and those that stand below or tie with it, as places among the sorted zeros.
        self._below = np.searchsorted(ordered[~ones], ordered[ones], side="left")
        self._not_above = np.searchsorted(ordered[~ones], ordered[ones], side="right")
        within = within_users(labels, scores, users)
        self._events_within = np.zeros(self.num_users)
        self._events_within[np.searchsorted(present, within.user)] = within.events
        self._auc_within = np.zeros(self.num_users)
        self._auc_within[np.searchsorted(present, within.user)] = within.auc * within.events
        self._loss = np.bincount(user, weights=log_losses(labels, scores))
        self._events = np.bincount(user).astype(np.float64)

    def figures(self, times: np.ndarray) -> np.ndarray:
        """AUC, GAUC and log loss, float64 [3]; NaN where a draw has one label only."""
        ones, zeros = times[self._one_users], times[self._zero_users]
        before = np.concatenate([[0.0], np.cumsum(zeros)])
        pairs = ones @ (before[self._below] + before[self._not_above]) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.array(
                [
                    pairs / (ones.sum() * before[-1]),
                    (times @ self._auc_within) / (times @ self._events_within),
                    (times @ self._loss) / (times @ self._events),
                ]
            )


def drawn_difference(mean: float, drawn: np.ndarray) -> Difference:
    """A difference of two models with the interval of 95% of its draws, and twice the smaller share on the other
    side.
    """
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Difference(mean, float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [0.025, 0.975])
    tiny = 1e-12  # sums of the same numbers in another order are not exactly 0
    other_side = min((drawn <= tiny).sum(), (drawn >= -tiny).sum())
    return Difference(mean, float(low), float(high), float(min(1.0, 2.0 * (other_side + 1) / (len(drawn) + 1))))
