"""Splits: which events train, which are held out, and the guard that keeps the two apart.

Protocols: leave-one-out, the literature's; cuts by global time, with and without gaps and day by day, and by each
user's own; and what the data's makers say, for each event or for each item. Every consumer of interactions takes
`Split.training_events()` and passes what it really uses to `Split.check_no_leak`.
"""

from plum_jax.corpus.splits.day import Day
from plum_jax.corpus.splits.gapped_time import GappedTime
from plum_jax.corpus.splits.given import Given, GivenItems
from plum_jax.corpus.splits.global_time import GlobalTime
from plum_jax.corpus.splits.leave_one_out import LeaveOneOut
from plum_jax.corpus.splits.split import (
    FOLDS,
    NOT_LEARNT,
    TEST,
    TRAIN,
    VALIDATION,
    Before,
    EvaluationSet,
    FoldName,
    Split,
    SplitError,
)
from plum_jax.corpus.splits.user_time import UserTime

__all__ = [
    "FOLDS",
    "NOT_LEARNT",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Before",
    "Day",
    "EvaluationSet",
    "FoldName",
    "GappedTime",
    "Given",
    "GivenItems",
    "GlobalTime",
    "LeaveOneOut",
    "Split",
    "SplitError",
    "UserTime",
]
