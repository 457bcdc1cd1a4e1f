"""A search over settings of a system on validation users alone: drawn trials, each trained whole."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plum_jax import artifact
from plum_jax.evaluation.system import System
from plum_jax.stages import Stages
from plum_jax.studies.places import StudyError
from plum_jax.training.run_record import run_record

Settings = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Search:
    """Trials of one system.

    Attributes:
      system: whose settings are searched; one that keeps what it trains under its row's name and evaluates validation
        users while training (SASRec, LEM, item history, LUM).
      space: path of a field of the system, e.g. "network.transformer.dropout_rate" -> its values.
      trials: settings that are drawn of all combinations, no two alike; None: all of them.
      by: metric of the validation users, whose best evaluation judges a trial.
      seed: of the draw. More trials of one seed are the earlier ones and further ones.
    """

    system: System
    space: Mapping[str, Sequence[Any]]
    trials: int | None = None
    by: str = "recall@10"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.space or any(len(values) == 0 for values in self.space.values()):
            raise StudyError(f"expected a SPACE of fields with one value each at least, got {dict(self.space)}")
        if self.trials is not None and not 1 <= self.trials <= self.places:
            raise StudyError(f"expected TRIALS of 1 to {self.places}, the combinations of SPACE, got {self.trials}")
        for settings in self.drawn:
            with_settings(self.system, settings)

    @property
    def places(self) -> int:
        """Combinations of the space's values."""
        return int(np.prod([len(values) for values in self.space.values()]))

    @property
    def drawn(self) -> list[Settings]:
        """The settings of each trial, in the order in which they are tried."""
        every = [dict(zip(self.space, values, strict=True)) for values in itertools.product(*self.space.values())]
        order = np.random.default_rng(self.seed).permutation(len(every))
        return [every[place] for place in order[: self.trials]]

    def rows(self, stages: Stages, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A row a trial, as in a `results.jsonl`, the best first; what is trained already is read.

        "trials" and "places" say how many were tried, of how many; "settings" which; "best" and "best_step" are of the
        best evaluation by `by`, and the "validation_curve" has all. The test users are not looked at.

        Args:
          stages: shared by all trials.
          facts: what all rows say besides.

        Raises:
          StudyError: the system does not evaluate by this metric while it trains.
        """
        rows = [self._row(stages, settings, facts) for settings in self.drawn]
        return sorted(rows, key=lambda row: -row["best"])

    def _row(self, stages: Stages, settings: Settings, facts: Mapping[str, Any]) -> dict[str, Any]:
        name = f"trial_{artifact.fingerprint(dict(settings))[:8]}"
        system = with_settings(self.system, settings)
        told = system.fit(stages, name).facts
        curve = told.get("validation_curve", {})
        if self.by not in curve:
            raise StudyError(
                f"{type(self.system).__name__} does not say {self.by!r} of validation users while it trains; it says "
                f"{', '.join(name for name in curve if '@' in name) or 'nothing'}: set its evaluation_period, or BY"
            )
        place = int(np.argmax(curve[self.by]))
        said = {"settings": dict(settings), "trials": len(self.drawn), "places": self.places}
        said |= {"by": self.by, "best": curve[self.by][place], "best_step": curve["step"][place]}
        said["config"] = artifact.fingerprint(stages.data, system)
        return run_record(name, {}, **{**said, **facts, **told})


def with_settings(value: Any, settings: Settings) -> Any:
    """A frozen dataclass with other values in fields of it, or of dataclasses in it, named by their paths.

    Raises:
      StudyError: there is no such field.
    """
    for path, new in settings.items():
        value = _replaced(value, path.split("."), new, path)
    return value


def _replaced(value: Any, names: Sequence[str], new: Any, path: str) -> Any:
    fields = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    if names[0] not in fields:
        raise StudyError(
            f"SPACE names {path!r}, but {type(value).__name__} has no field {names[0]!r}; it has "
            f"{', '.join(fields) or 'none'}"
        )
    inner = _replaced(getattr(value, names[0]), names[1:], new, path) if names[1:] else new
    return dataclasses.replace(value, **{names[0]: inner})
