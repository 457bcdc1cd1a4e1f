"""Leave-one-out, the literature's protocol (SASRec, S3-Rec, TIGER): the end of every history is held out."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits.split import FOLDS, TEST, TRAIN, VALIDATION, Split, SplitError


@dataclasses.dataclass(frozen=True)
class LeaveOneOut:
    """A user's last interaction is for test, the last but one for validation, the rest for training.

    Rows of one user with the same item at the same time are one interaction recorded more than once, and stay in one
    fold; otherwise the copy would give the target away. Users with fewer than three interactions train only.
    """

    def split(self, corpus: Corpus) -> Split:
        """Splits.

        Raises:
          SplitError: no user has three interactions.
        """
        last_row = last_row_of_interaction(corpus)
        is_last = last_row == np.arange(corpus.num_events)
        seen = np.concatenate([[0], np.cumsum(is_last)])  # interactions that are complete before each row
        at_bounds = seen[corpus.history_offsets]
        interactions_of_user = np.diff(at_bounds)
        user = corpus.events["user"].to_numpy()
        from_end = at_bounds[user + 1] - seen[1:]
        enough = interactions_of_user[user] >= 3
        fold_of_row = np.where(enough & (from_end == 0), TEST, np.where(enough & (from_end == 1), VALIDATION, TRAIN))
        fold = fold_of_row[last_row].astype(np.int8)
        targets = {name: np.flatnonzero(is_last & (fold == number)) for name, number in FOLDS.items()}
        if not len(targets["test"]):
            raise SplitError(
                f"leave-one-out needs users with at least 3 interactions; the longest of {corpus.num_users} histories "
                f"of corpus {corpus.name!r} has {interactions_of_user.max(initial=0)}"
            )
        return Split(corpus=corpus, fold=fold, targets=targets, config=self)


def last_row_of_interaction(corpus: Corpus) -> np.ndarray:
    """int64 [num_events]: the last row with the same user, item and time; the row itself where times are not known."""
    last = np.arange(corpus.num_events)
    if corpus.clock == "order":
        return last
    user, item, time = (corpus.events[column].to_numpy() for column in ("user", "item", "time"))
    # Events are sorted by user and time, so copies stand in one run of rows with equal user and time; most runs are of
    # one row and need no look.
    begins = (np.diff(user, prepend=-1) != 0) | (np.diff(time, prepend=0) != 0)
    rows = np.flatnonzero(~begins | ~np.append(begins[1:], True))
    interaction = np.cumsum(begins)[rows] * corpus.num_items + item[rows]
    order = np.argsort(interaction, kind="stable")
    ends = np.append(np.diff(interaction[order]) != 0, True) if len(rows) else np.zeros(0, bool)
    next_end = np.searchsorted(np.flatnonzero(ends), np.arange(len(rows)))
    last[rows[order]] = rows[order][np.flatnonzero(ends)][next_end]
    return last
