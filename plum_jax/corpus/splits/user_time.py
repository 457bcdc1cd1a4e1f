"""A cut by each user's own time: the end of every history is held out, as a share of it."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits.leave_one_out import last_row_of_interaction
from plum_jax.corpus.splits.split import FOLDS, TEST, TRAIN, VALIDATION, Split, SplitError, first_targets


@dataclasses.dataclass(frozen=True)
class UserTime:
    """The last `test` share of a user's events is for test, the share before it for validation, the rest for training.

    Shares are rounded down, but of three or more events one at least is in each fold; users with fewer train only. A
    user's folds follow one another, so what comes before a training event is a training event. Rows of one user with
    the same item at the same time are one interaction recorded more than once: all events of that time stay in one
    fold, the later one, otherwise the copy would give a held-out event away.

    The target of a fold is a user's first event in it; the history is all that the user did before.

    Attributes:
      validation, test: shares of a user's events, greater than 0 and together less than 1.
      minimum_history: users with fewer events before their target are not evaluated.
    """

    validation: float = 0.1
    test: float = 0.1
    minimum_history: int = 1

    def split(self, corpus: Corpus) -> Split:
        """Splits; any clock will do.

        Raises:
          SplitError: shares that leave a fold empty, or no user with three events.
        """
        if not (self.validation > 0 and self.test > 0 and self.validation + self.test < 1):
            raise SplitError(
                "expected validation and test as shares of a user's events, greater than 0 and together less than 1, "
                f"got {self.validation} and {self.test}"
            )
        counts = np.diff(corpus.history_offsets)
        if counts.max(initial=0) < 3:
            raise SplitError(
                f"UserTime needs users with at least 3 events; the longest of {corpus.num_users} histories of corpus "
                f"{corpus.name!r} has {counts.max(initial=0)}"
            )
        user = corpus.events["user"].to_numpy()
        tested = np.clip((counts * self.test).astype(np.int64), 1, np.maximum(counts - 2, 1))
        validated = np.clip((counts * self.validation).astype(np.int64), 1, np.maximum(counts - 1 - tested, 1))
        from_end = corpus.history_offsets[user + 1] - 1 - np.arange(corpus.num_events)
        in_test, held_out = from_end < tested[user], from_end < (tested + validated)[user]
        by_place = np.where(in_test, TEST, np.where(held_out, VALIDATION, TRAIN))
        fold = np.where(counts[user] >= 3, by_place, TRAIN)[_ends_of_copies(corpus)].astype(np.int8)
        targets = {name: first_targets(corpus, fold, number, self.minimum_history) for name, number in FOLDS.items()}
        return Split(corpus=corpus, fold=fold, targets=targets, config=self)


def _ends_of_copies(corpus: Corpus) -> np.ndarray:
    """int64 [num_events]: the row itself; where a user's events of one time hold copies, the last row of that time."""
    rows = np.arange(corpus.num_events)
    copied = last_row_of_interaction(corpus) != rows
    if not copied.any():
        return rows
    user, time = (corpus.events[column].to_numpy() for column in ("user", "time"))
    begins = np.flatnonzero((np.diff(user, prepend=-1) != 0) | (np.diff(time, prepend=0) != 0))
    lengths = np.diff(np.append(begins, corpus.num_events))
    ends = np.repeat(begins + lengths - 1, lengths)
    return np.where(np.repeat(np.maximum.reduceat(copied, begins), lengths), ends, rows)
