"""Cold start as a protocol: some items are held out of all training, as if they had arrived after it."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import NOT_LEARNT, TRAIN, GlobalTime, LeaveOneOut, Split, SplitError


@dataclasses.dataclass(frozen=True)
class HoldOutItems:
    """A split in which a random share of the items is new: no quantiser, task or baseline learns from them.

    Their events leave the training fold; in the histories of evaluations they stay, for a new item can be watched
    before the model is trained again. Targets are those of `splitter`; evaluations give recall on the new ones apart
    ("cold").

    Attributes:
      splitter: of the events.
      share: of the items, above 0 and below 1.
      seed: of the draw.
    """

    splitter: LeaveOneOut | GlobalTime
    share: float = 0.1
    seed: int = 0

    def split(self, corpus: Corpus) -> Split:
        """Splits.

        Raises:
          SplitError: a share that leaves no new item, or no event to learn from; or what `splitter` raises.
        """
        split = self.splitter.split(corpus)
        count = round(self.share * corpus.num_items)
        if not 0 < count < corpus.num_items:
            raise SplitError(
                f"expected a share that holds out one or more of {corpus.num_items} items and not all, got {self.share}"
            )
        held_out = np.zeros(corpus.num_items, bool)
        held_out[np.random.default_rng(self.seed).choice(corpus.num_items, count, replace=False)] = True
        of_new = held_out[corpus.events["item"].to_numpy()]
        fold = np.where((split.fold == TRAIN) & of_new, NOT_LEARNT, split.fold).astype(np.int8)
        if not (fold == TRAIN).any():
            raise SplitError(f"no training event is left without the {count} items held out: lower share={self.share}")
        return Split(corpus, fold, split.targets, config=self, held_out_items=held_out)
