"""Cuts by global time with gaps between the folds: where labels arrive late, and a fold may not learn from them."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits.split import FOLDS, NOT_LEARNT, TEST, TRAIN, VALIDATION, Split, SplitError, first_targets

DAY = 86_400


@dataclasses.dataclass(frozen=True)
class GappedTime:
    """Training, a gap, validation, a gap, test; days are counted from midnight (UTC) of the first event's day.

    A gap is as long as labels take to arrive: on the first day of validation the labels of the training fold are known,
    and those of the gap are not. Events of the gaps and after the test are `NOT_LEARNT`: they are read as histories,
    and nothing is learnt from them. (The Fraud Detection Handbook, chapter 5, has a week of training, a week of delay
    and a week of test.)

    Attributes:
      train_days: days of training.
      gap_days: days of each gap.
      validation_days, test_days: days of the folds.
    """

    train_days: int = 126
    gap_days: int = 7
    validation_days: int = 7
    test_days: int = 28

    def split(self, corpus: Corpus) -> Split:
        """Splits.

        Raises:
          SplitError: times that users do not share, a length that is not positive, or a fold left empty.
        """
        if corpus.clock != "absolute":
            raise SplitError(
                f"GappedTime compares the times of all users, but the clock of corpus {corpus.name!r} is "
                f"{corpus.clock!r}: use a source with unix times"
            )
        if min(self.train_days, self.validation_days, self.test_days) < 1 or self.gap_days < 0:
            raise SplitError(f"expected a day or more for each fold and a gap of 0 days or more, got {self}")
        day = corpus.events["time"].to_numpy() // DAY
        day = day - day.min() if len(day) else day
        first_validation = self.train_days + self.gap_days
        first_test = first_validation + self.validation_days + self.gap_days
        fold = np.full(len(day), NOT_LEARNT, np.int8)
        fold[day < self.train_days] = TRAIN
        fold[(day >= first_validation) & (day < first_validation + self.validation_days)] = VALIDATION
        fold[(day >= first_test) & (day < first_test + self.test_days)] = TEST
        for name, number in {"training": TRAIN, **FOLDS}.items():
            if not (fold == number).any():
                raise SplitError(
                    f"no event is left for {name}: the test begins on day {first_test}, and the events of corpus "
                    f"{corpus.name!r} run over {int(day.max(initial=0)) + 1} days; shorten the folds of GappedTime"
                )
        targets = {name: first_targets(corpus, fold, number, 0) for name, number in FOLDS.items()}
        return Split(corpus=corpus, fold=fold, targets=targets, config=self)
