"""Predictions of labels of 0 or 1: AUC, AUC within users, and log loss, each beside its standard error.

Events of one user are not independent. Errors are told twice where that matters: over events, as DeLong has it, and
over users, who are the unit that another sample would draw anew.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata


class Estimate(NamedTuple):
    """A figure and its standard error."""

    value: float
    se: float


class WithinUsers(NamedTuple):
    """AUC of each user who has both labels.

    Attributes:
      user: int64 [U'], ascending.
      auc: float64 [U'].
      events: int64 [U'], the user's events: the weights of the mean.
      all_users: users that there are, with one label or both.
    """

    user: np.ndarray
    auc: np.ndarray
    events: np.ndarray
    all_users: int

    @property
    def gauc(self) -> Estimate | None:
        """Mean weighted by events, and its standard error over users (of a ratio of two sums); None: nobody has one."""
        if not len(self.user):
            return None
        value = float(np.average(self.auc, weights=self.events))
        return Estimate(value, _clustered_error(self.events * (self.auc - value) / self.events.sum()))


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Probability that an event of label 1 is scored above one of label 0, ties counted half.

    Args:
      labels: 0 or 1, [n].
      scores: [n].

    Raises:
      ValueError: one label only.
    """
    positive = checked(labels, scores)
    m = int(positive.sum())
    return float((rankdata(scores)[positive].sum() - m * (m + 1) / 2) / (m * (len(scores) - m)))


def placements(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """float64 [n]: of an event of label 1 the share of those of label 0 that it is above, of one of label 0 the share
    of those of label 1 that are above it, ties half; the mean over either label is the AUC.

    They are DeLong's structural components, by ranks (Sun and Xu, IEEE SPL 2014) instead of all pairs.

    Raises:
      ValueError: one label only.
    """
    positive = checked(labels, scores)
    ranks, found = rankdata(scores), np.empty(len(scores))
    ones, zeros = ranks[positive], ranks[~positive]
    found[positive] = (ones - rankdata(scores[positive])) / len(zeros)
    found[~positive] = 1.0 - (zeros - rankdata(scores[~positive])) / len(ones)
    return found


def delong_covariance(labels: np.ndarray, components: np.ndarray) -> np.ndarray:
    """float64 [M, M]: covariance of the AUCs of M models over the same events (DeLong et al., Biometrics 1988); NaN
    where a label has one event, which has no spread.

    Args:
      labels: 0 or 1, [n].
      components: float64 [M, n], `placements` of each model.
    """
    positive = np.asarray(labels) > 0.5
    parts = (components[:, positive], components[:, ~positive])
    if min(part.shape[1] for part in parts) < 2:
        return np.full((len(components),) * 2, np.nan)
    return sum((np.atleast_2d(np.cov(part)) / part.shape[1] for part in parts), np.zeros((len(components),) * 2))


def user_error(labels: np.ndarray, components: np.ndarray, users: np.ndarray) -> float:
    """Standard error of an AUC where users are drawn and not events (Obuchowski, Biometrics 1997, by jackknife's first
    order): what each user's events move the AUC by, squared and summed.

    Args:
      labels: 0 or 1, [n].
      components: float64 [n], `placements`; or the differences of two models' placements.
      users: int [n].
    """
    positive = np.asarray(labels) > 0.5
    moved = np.empty(len(components))
    for mine in (positive, ~positive):
        moved[mine] = (components[mine] - components[mine].mean()) / mine.sum()
    return _clustered_error(_sums(moved, users))


def within_users(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> WithinUsers:
    """AUC of every user with both labels (GAUC of DIN, arXiv 1706.06978, section 5.3, weighs them by events)."""
    positive = checked(labels, scores)
    present, user = np.unique(users, return_inverse=True)
    order = np.lexsort((scores, user))
    who, score, one = user[order], scores[order], positive[order]
    starts = np.flatnonzero(np.diff(who, prepend=-1))
    counts = np.diff(np.append(starts, len(who)))
    # Ranks within a user, the mean of its ties'.
    begins = np.flatnonzero((np.diff(who, prepend=-1) != 0) | (np.diff(score, prepend=np.nan) != 0))
    lengths = np.diff(np.append(begins, len(who)))
    ranks = np.repeat(begins + (lengths + 1) / 2, lengths) - np.repeat(starts, counts)
    ones = np.add.reduceat(one.astype(np.float64), starts)
    total = np.add.reduceat(np.where(one, ranks, 0.0), starts)
    both = (ones > 0) & (ones < counts)
    m, n = ones[both], counts[both] - ones[both]
    return WithinUsers(present[both], (total[both] - m * (m + 1) / 2) / (m * n), counts[both], len(present))


def log_losses(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """float64 [n]: -log p(label) of each event, exact where a logit is large."""
    logits = np.asarray(logits, np.float64)
    return np.logaddexp(0.0, logits) - np.asarray(labels) * logits


def classification_metrics(labels: np.ndarray, logits: np.ndarray, users: np.ndarray) -> dict[str, float]:
    """All figures by name.

    "auc" with "auc_se" (over users) and "auc_delong_se" (over events), "gauc" with "gauc_se" over the "gauc_users" of
    "users" who have both labels, left out where none has; "log_loss" with "log_loss_se" (over users);
    "mean_prediction", "mean_label", "events".

    Args:
      labels: 0 or 1, [n].
      logits: float [n], of label 1.
      users: int [n].

    Raises:
      ValueError: one label only, or logits that are not finite.
    """
    components, losses = placements(labels, logits), log_losses(labels, logits)
    within, loss = within_users(labels, logits, users), float(losses.mean())
    gauc = {} if within.gauc is None else {"gauc": within.gauc.value, "gauc_se": within.gauc.se}
    return {
        "auc": auc(labels, logits),
        "auc_se": user_error(labels, components, users),
        "auc_delong_se": float(np.sqrt(delong_covariance(labels, components[None])[0, 0])),
        **gauc,
        "gauc_users": len(within.user),
        "log_loss": loss,
        "log_loss_se": _clustered_error(_sums(losses - loss, users) / len(losses)),
        "mean_prediction": float((1.0 / (1.0 + np.exp(-np.asarray(logits, np.float64)))).mean()),
        "mean_label": float(np.mean(labels)),
        "events": len(labels),
        "users": within.all_users,
    }


def checked(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """bool [n]: which labels are 1.

    Raises:
      ValueError: other shapes, scores that are not finite, labels that are not 0 or 1, or one label only.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"expected a label and a score for each event, got shapes {labels.shape} and {scores.shape}")
    if not np.isfinite(scores).all():
        place = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"expected finite scores, got {scores[place]} for event {place}")
    other = np.setdiff1d(labels, [0, 1])
    if len(other):
        raise ValueError(f"expected labels of 0 and 1, got {other[0]} among them")
    positive = labels > 0.5
    if positive.all() or not positive.any():
        raise ValueError(
            f"AUC compares events of label 1 with events of label 0, and all {len(labels):,} are "
            f"{int(positive.any())}: expected both labels"
        )
    return positive


def _sums(values: np.ndarray, users: np.ndarray) -> np.ndarray:
    return np.bincount(np.unique(users, return_inverse=True)[1], weights=values)


def _clustered_error(moved: np.ndarray) -> float:
    """Of a figure that each of U users moves by so much, which sum to 0."""
    users = len(moved)
    # One user has no spread to speak of: missing is missing, never 0.
    return float(np.sqrt(np.square(moved).sum() * users / (users - 1))) if users > 1 else float("nan")
