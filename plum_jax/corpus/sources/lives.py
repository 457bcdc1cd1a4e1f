"""Births and deaths: some items of any source come late, some go early."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import polars as pl

from plum_jax.corpus.life import END_TIME, PUBLISH_TIME
from plum_jax.corpus.schema import Corpus, CorpusError


class _Source(Protocol):
    def inputs(self) -> Mapping[str, str]: ...

    def read(self) -> Corpus: ...


@dataclasses.dataclass(frozen=True)
class Lives:
    """A source with items that have a first and a last moment; their events outside of those are left out.

    For logs in which next to nothing is born (of MovieLens-1M's films 5 are first rated in the last fifth of the
    ratings), and for the simulator. Items are drawn without regard to anything, so they are as popular as others, and
    what users take next follows from the same rules as before.

    Attributes:
      source: of the events.
      born: share of the items that come at a moment after `after`.
      gone: share of the items that go at a moment after `after`, and after they came.
      after: a fraction of all events in order of time; moments are spread evenly over the events behind it.
      seed: of the draws.
    """

    source: _Source
    born: float = 0.2
    gone: float = 0.0
    after: float = 0.8
    seed: int = 0

    def inputs(self) -> dict[str, str]:
        """What the source reads."""
        return dict(self.source.inputs())

    def read(self) -> Corpus:
        """The corpus, with "publish_time" of items that come and "end_time" of those that go.

        Raises:
          CorpusError: shares that are none, or no unix times.
        """
        if not (0 <= self.born < 1 and 0 <= self.gone < 1 and 0 < self.after < 1):
            raise CorpusError(f"expected shares born and gone from 0 and after above 0, all below 1, got {self}")
        corpus = self.source.read()
        if corpus.clock != "absolute":
            raise CorpusError(f"births need unix times, but the clock of corpus {corpus.name!r} is {corpus.clock!r}")
        random, count = np.random.default_rng(self.seed), corpus.num_items
        come, go = (random.random(count) < share for share in (self.born, self.gone))
        first = np.where(come, random.uniform(self.after, 1, count), 0.0)
        last = np.where(go, random.uniform(np.maximum(first, self.after), 1.0, count), 2.0)
        times = np.sort(corpus.events["time"].to_numpy())

        def moment(fraction: np.ndarray, there: np.ndarray) -> pl.Series:
            place = np.minimum((fraction * len(times)).astype(np.int64), len(times) - 1)
            return pl.select(pl.when(pl.Series(there)).then(pl.Series(times[place]))).to_series().cast(pl.Int64)

        born, gone = moment(first, come), moment(last, go)
        item, time = (corpus.events[name].to_numpy() for name in ("item", "time"))
        kept = time >= born.fill_null(times[0]).to_numpy()[item]
        kept &= time < gone.fill_null(times[-1] + 1).to_numpy()[item]
        known = corpus.items[PUBLISH_TIME] if PUBLISH_TIME in corpus.items.columns else pl.lit(None, pl.Int64)
        items = corpus.items.with_columns(pl.coalesce(born, known).alias(PUBLISH_TIME), gone.alias(END_TIME))
        return dataclasses.replace(corpus, items=items, events=corpus.events.filter(pl.Series(kept)))
