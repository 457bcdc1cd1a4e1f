"""One day of a run that goes on from day to day: what is learnt on it, and the day that judges it."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.corpus.life import births
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits.split import NOT_LEARNT, TEST, TRAIN, Before, Split, SplitError, first_targets


@dataclasses.dataclass(frozen=True)
class Day:
    """Events before `train_until` train, those from `judged_from` on are for test; those between are histories alone.

    The target of a user is the first event from `judged_from` on; the history is all that the user did before it. There
    is no validation. Items are known, with their text, from the moment that the corpus has them, which is before anyone
    watches them.

    Attributes:
      learnt_until: events before were learnt by the run that this one goes on from, and the texts of the items that had
        come before `judged_from`; None: this run begins.
      train_until, judged_from: unix seconds.
    """

    learnt_until: int | None
    train_until: int
    judged_from: int

    def split(self, corpus: Corpus) -> Split:
        """Splits.

        Raises:
          SplitError: times in another order, no event that is learnt, or nobody to judge.
        """
        before = self.train_until if self.learnt_until is None else self.learnt_until
        if not before <= self.train_until <= self.judged_from:
            raise SplitError(f"expected learnt_until <= train_until <= judged_from, got {self}")
        times = corpus.events["time"].to_numpy()
        fold = np.where(times < self.train_until, TRAIN, NOT_LEARNT).astype(np.int8)
        fold[times >= self.judged_from] = TEST
        known, new = None, fold == TRAIN
        if self.learnt_until is not None:
            known = Before(events=times < self.learnt_until, items=births(corpus) < self.judged_from)
            new = new & ~known.events
        if not new.any():
            raise SplitError(f"no event of corpus {corpus.name!r} is left to learn from: {self}")
        test = first_targets(corpus, fold, TEST, 1)
        if not len(test):
            raise SplitError(
                f"nobody in corpus {corpus.name!r} has an event from unix {self.judged_from} on and one before it: "
                "take longer or fewer days (SPAN, DAYS)"
            )
        return Split(corpus, fold, {"validation": test[:0], "test": test}, config=self, before=known)
