"""A corpus as it was known at a moment."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from plum_jax import artifact
from plum_jax.corpus.life import births
from plum_jax.corpus.schema import KIND, Corpus


@dataclasses.dataclass(frozen=True)
class AsOf:
    """The events before a moment, their users, and the items that had come by then, each in the order of the whole.

    Attributes:
      corpus: directory of the whole corpus, an artefact.
      until: unix seconds; what is later is not read.
    """

    # A run may move: the fingerprint of what it reads is among its inputs.
    corpus: str = dataclasses.field(metadata=artifact.NOT_DESCRIBED)
    until: int

    def inputs(self) -> dict[str, str]:
        """The whole corpus."""
        return {"corpus": artifact.read_manifest(self.corpus, KIND).fingerprint}

    def read(self) -> Corpus:
        """Users and items are numbered anew; their ids are what they were."""
        whole = Corpus.load(self.corpus)
        events = whole.events.filter(pl.col("time") < self.until)
        items = np.flatnonzero(births(whole) < self.until)
        users = np.unique(events["user"].to_numpy())
        number = {name: _numbers(kept) for name, kept in (("user", users), ("item", items))}
        renumbered = [pl.Series(name, to[events[name].to_numpy()], dtype=pl.Int32) for name, to in number.items()]
        return dataclasses.replace(
            whole, items=whole.items[items], users=whole.users[users], events=events.with_columns(renumbered)
        )


def _numbers(kept: np.ndarray) -> np.ndarray:
    """Old number -> new number, of those that are kept (ascending)."""
    numbers = np.full(int(kept.max(initial=-1)) + 1, -1)
    numbers[kept] = np.arange(len(kept))
    return numbers
