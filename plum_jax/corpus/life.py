"""When items come and go, and the days that events are divided into."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from plum_jax.corpus.schema import Corpus, CorpusError

DAY = 86_400
PUBLISH_TIME, END_TIME = "publish_time", "end_time"
ALWAYS = np.iinfo(np.int64).min


def births(corpus: Corpus) -> np.ndarray:
    """int64 [N], unix seconds: an item's publish time, where it is known, else its first event; `ALWAYS` for neither.

    What was watched before its publish time was there by then.
    """
    first = corpus.events.group_by("item").agg(pl.col("time").min())
    born = np.full(corpus.num_items, np.iinfo(np.int64).max)
    born[first["item"].to_numpy()] = first["time"].to_numpy()
    if PUBLISH_TIME in corpus.items.columns:
        published = corpus.items[PUBLISH_TIME].cast(pl.Int64).fill_null(np.iinfo(np.int64).max).to_numpy()
        born = np.minimum(born, published)
    return np.where(born == np.iinfo(np.int64).max, ALWAYS, born)


def alive(corpus: Corpus, time: int) -> np.ndarray:
    """bool [N]: items whose end, where they have one, is after `time`."""
    if END_TIME not in corpus.items.columns:
        return np.ones(corpus.num_items, bool)
    return (corpus.items[END_TIME].cast(pl.Int64).fill_null(np.iinfo(np.int64).max) > time).to_numpy()


@dataclasses.dataclass(frozen=True)
class Calendar:
    """A base period, and days after it.

    Attributes:
      base: where the base ends: unix seconds, or a fraction (0 < f < 1) of all events in order of time.
      days: how many follow.
      span: length of a day in days of 24 hours; None: as long as it takes for each to have equally many events, for
        logs that come in bursts.
    """

    base: int | float = 0.8
    days: int = 8
    span: float | None = None

    def cuts(self, corpus: Corpus) -> np.ndarray:
        """int64 [days + 1], unix seconds: the base ends at cuts[0], day d (from 1) is cuts[d-1] <= time < cuts[d].

        Raises:
          CorpusError: times that users do not share, a base that is no fraction, or a day without events.
        """
        if corpus.clock != "absolute":
            raise CorpusError(
                f"days compare the times of all users, but the clock of corpus {corpus.name!r} is {corpus.clock!r}: "
                "use a source with unix times"
            )
        if self.days < 1 or (self.span is not None and not self.span > 0):
            raise CorpusError(f"expected one day or more, each of a positive span, got {self.days} and {self.span}")
        if isinstance(self.base, float) and not 0 < self.base < 1:
            raise CorpusError(f"expected a base that ends at unix seconds or a fraction of the events, got {self.base}")
        times = np.sort(corpus.events["time"].to_numpy())
        cuts = self._cuts(times)
        counts = np.diff(np.searchsorted(times, [ALWAYS, *cuts]))
        for number, count in enumerate(counts):
            if not count:
                what = "the base" if number == 0 else f"day {number} of {self.days}"
                since = "" if number == 0 else f"{_said(cuts[number - 1])} to "
                raise CorpusError(
                    f"{what} ({since}{_said(cuts[number])}) has no event of corpus {corpus.name!r}, whose events run "
                    f"from {_said(times[0])} to {_said(times[-1])}: take longer or fewer days, or another end of the "
                    "base (BASE, DAYS, SPAN)"
                    if len(times)
                    else f"corpus {corpus.name!r} has no events"
                )
        return cuts

    def _cuts(self, times: np.ndarray) -> np.ndarray:
        if not len(times):
            return np.zeros(self.days + 1, np.int64)
        begin = int(np.quantile(times, self.base, method="higher")) if isinstance(self.base, float) else self.base
        if self.span is not None:
            return begin + np.round(np.arange(self.days + 1) * self.span * DAY).astype(np.int64)
        before = int(np.searchsorted(times, begin))
        places = before + (len(times) - before) * np.arange(self.days) // self.days
        inner = times[np.minimum(places, len(times) - 1)]
        return np.append(inner, times[-1] + 1).astype(np.int64)


def _said(time: int) -> str:
    return str(np.datetime64(int(time), "s"))
