"""A cut by global time, which is what a live system faces."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits.split import FOLDS, TRAIN, Split, SplitError, first_targets


@dataclasses.dataclass(frozen=True)
class GlobalTime:
    """Training before `validation_time`, validation from there until `test_time`, test from `test_time` on.

    The target of a window is a user's first event in it; the history is all that the user did before. The user's other
    events of the window are held out and not predicted. No training event is at or after `validation_time`.

    Attributes:
      validation_time: unix seconds, or a fraction (0 < f < 1) of all events in order of time.
      test_time: the same.
      minimum_history: users with fewer events before their target are not evaluated.
    """

    validation_time: int | float = 0.8
    test_time: int | float = 0.9
    minimum_history: int = 1

    def split(self, corpus: Corpus) -> Split:
        """Splits.

        Raises:
          SplitError: times that users do not share, cuts in the wrong order, or a fold left empty.
        """
        if corpus.clock != "absolute":
            raise SplitError(
                f"GlobalTime compares the times of all users, but the clock of corpus {corpus.name!r} is "
                f"{corpus.clock!r}: use LeaveOneOut, or a source with unix times"
            )
        times = corpus.events["time"].to_numpy()
        if not len(times):
            raise SplitError(f"corpus {corpus.name!r} has no events to split")
        validation_cut = _cut(times, self.validation_time, "validation_time")
        test_cut = _cut(times, self.test_time, "test_time")
        if validation_cut >= test_cut:
            raise SplitError(
                f"expected validation_time before test_time, got {self.validation_time} (unix {validation_cut}) and "
                f"{self.test_time} (unix {test_cut})"
            )
        fold = ((times >= validation_cut).astype(np.int8) + (times >= test_cut)).astype(np.int8)
        targets = {name: first_targets(corpus, fold, number, self.minimum_history) for name, number in FOLDS.items()}
        for name, count in {"training": (fold == TRAIN).sum(), **{f: len(rows) for f, rows in targets.items()}}.items():
            if not count:
                raise SplitError(
                    f"no event is left for {name}: the cuts are unix {validation_cut} and {test_cut}, the events of "
                    f"corpus {corpus.name!r} run from {times.min()} to {times.max()}"
                )
        return Split(corpus=corpus, fold=fold, targets=targets, config=self)


def _cut(times: np.ndarray, value: int | float, name: str) -> int:
    """Unix second of a cut given as such, or as a fraction of all events."""
    if isinstance(value, float) and not 0 < value < 1:
        raise SplitError(f"expected {name} as unix seconds (an integer) or a fraction between 0 and 1, got {value}")
    if isinstance(value, float):
        return int(np.quantile(times, value, method="higher"))
    return value
