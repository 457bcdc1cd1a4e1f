"""The chain of days: the base, an update for each day from the day before, and from scratch beside them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from plum_jax.corpus.life import Calendar
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.sources.as_of import AsOf
from plum_jax.corpus.splits import Day
from plum_jax.semantic_ids.catalogue.accepted import require_old_ids
from plum_jax.semantic_ids.catalogue.frozen_ids import FrozenIds
from plum_jax.semantic_ids.table import SidTable
from plum_jax.stages import Data
from plum_jax.systems.generative.continued import Continued
from plum_jax.systems.generative.initialisation import Initialisation
from plum_jax.systems.generative.phase import Phase, in_one_pass, in_passes
from plum_jax.systems.generative.pipeline import GenerativeStages, Pipeline


@dataclasses.dataclass(frozen=True)
class Days:
    """What is trained, and on what days.

    An update goes on from the parameters of the day before, with a new optimizer: CPT on the day's events and on the
    texts of the items that have come, then retrieval on the day's events, each record once. Its schedules are its own,
    from the start, to a peak that is a part of the base's: the schedule is rewound every day by the same rule.

    Attributes:
      pipeline: of the base, and of what begins from scratch; its splitter plays no part.
      cpt, retrieval: the phases of an update; their steps follow from the day's records.
      calendar: where the base ends and the days are.
      passes: of the base, and of what begins from scratch, over its records, in each phase.
      gap: days between the last that is learnt and the one that judges: as long as an update takes to be served.
      scratch: updates beside which a model is trained from scratch on everything up to that day.
    """

    pipeline: Pipeline
    cpt: Phase = Phase()
    retrieval: Phase = Phase()
    calendar: Calendar = Calendar()
    passes: float = 3.0
    gap: int = 0
    scratch: Sequence[int] = ()

    @property
    def updates(self) -> int:
        """How many there are: the last is judged on the last day."""
        return self.calendar.days - 1 - self.gap

    def __post_init__(self) -> None:
        if self.gap < 0 or self.updates < 0:
            raise ValueError(
                f"expected a GAP from 0 on that leaves a day to judge, got {self.gap} with {self.calendar.days} days"
            )
        for phase in (self.pipeline.cpt, self.pipeline.retrieval, self.cpt, self.retrieval):
            if phase.training.select_by or phase.training.evaluation_period:
                raise ValueError(
                    "days have no validation users: leave SELECT_BY = '' and EVALUATION_PERIOD = 0, and choose "
                    "settings on earlier days (BASE)"
                )
        outside = [day for day in self.scratch if not 1 <= day <= self.updates]
        if outside:
            raise ValueError(f"expected SCRATCH to name updates from 1 to {self.updates}, got {outside[0]}")


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """The runs of `Days` in one directory: `days/0` is the base, `days/3` the third update, `scratch/3` its rival.

    Attributes:
      days: what is trained.
      directory: MODEL_DIR.
      source: of the whole corpus.
      cuts: int64, of the calendar: base and days end there.
    """

    days: Days
    directory: epath.Path
    cuts: np.ndarray

    @classmethod
    def over(cls, days: Days, directory: epath.Path) -> Chain:
        """Reads the whole corpus into `directory`/corpus.

        Raises:
          CorpusError: a day without events, before anything is trained.
        """
        whole: Corpus = days.pipeline.data.stages(directory).corpus
        return cls(days, directory, days.calendar.cuts(whole))

    def place(self, day: int, *, scratch: bool = False) -> epath.Path:
        """The directory of an update's run."""
        return self.directory / ("scratch" if scratch else "days") / str(day)

    def judged_day(self, day: int) -> int:
        """The number (from 1) of the day that judges an update."""
        return day + 1 + self.days.gap

    def run(self, day: int, *, scratch: bool = False) -> GenerativeStages:
        """The stages of an update (0: the base), with the steps that follow from its records.

        Raises:
          SidTableMismatch: its table has another ID for an item of the day before.
        """
        begins = scratch or day == 0
        pipeline = self._beginning(day) if begins else self._update(day)
        stages = pipeline.stages(self.place(day, scratch=scratch))
        if not begins:
            old = SidTable.load(self.place(day - 1) / "sids")
            require_old_ids(old, stages.table, str(stages.directory / "sids"))
        steps: Any = functools.partial(in_passes, passes=self.days.passes) if begins else in_one_pass
        cpt = steps(pipeline.cpt, records=stages.cpt_records)
        retrieval = steps(pipeline.retrieval, records=stages.retrieval_records)
        return dataclasses.replace(stages, config=dataclasses.replace(pipeline, cpt=cpt, retrieval=retrieval))

    def _beginning(self, day: int) -> Pipeline:
        data = self._data(day, learnt_until=None)
        return dataclasses.replace(self.days.pipeline, data=data)

    def _update(self, day: int) -> Pipeline:
        before, pipeline = self.place(day - 1), self.days.pipeline
        data = self._data(day, learnt_until=int(self.cuts[day - 1]))
        return dataclasses.replace(
            pipeline,
            data=dataclasses.replace(data, quantizer=FrozenIds(str(before / "sids")), balance=None),
            decoder=pipeline.initialisation.decoder_config(pipeline.decoder),
            initialisation=Initialisation(),
            cpt=self.days.cpt,
            retrieval=self.days.retrieval,
            continued=Continued(str(before)),
        )

    def _data(self, day: int, learnt_until: int | None) -> Data:
        """What is known on the evening of a day (0: of the base), and the day that judges."""
        judged = self.judged_day(day)
        splitter = Day(learnt_until, int(self.cuts[day]), int(self.cuts[judged - 1]))
        source = AsOf(str(self.directory / "corpus"), int(self.cuts[judged]))
        return dataclasses.replace(self.days.pipeline.data, source=source, splitter=splitter)
