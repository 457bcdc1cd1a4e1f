"""What all cells of a study share: made once, by whichever process comes first, and known by its figures."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Protocol, runtime_checkable

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.evaluation.scalable import DataFacts, Prepared
from plum_jax.studies.records import shared_directory
from plum_jax.studies.study import Study

KIND = "study_shared"
FACTS = "facts.json"


@runtime_checkable
class KnowsTheBest(Protocol):
    """A source that knows how well its events can be predicted: the simulator."""

    def best_possible_recall(self, k: int, users: np.ndarray | None = None) -> float:
        """Of the best recommender there can be."""

    def best_possible_nats(self, users: np.ndarray | None = None) -> float:
        """Of an item, under the best model there can be."""


@dataclasses.dataclass(frozen=True)
class Shared:
    """What is known of what a cell reads.

    Attributes:
      data: what a grid must know.
      best: "best_possible_recall@k" and "best_possible_loss" (nats a token of an item) on the test users, where the
        source knows them.
    """

    data: DataFacts
    best: dict[str, float]


def shared(study: Study, study_dir: epath.PathLike) -> Shared:
    """Makes what is not there yet, one process at a time, and says what is known of it."""
    directory = shared_directory(study_dir)
    facts = directory / "facts"
    config, inputs = study.shared_config, study.system.source.inputs()
    if not artifact.is_current(facts, kind=KIND, config=config, inputs=inputs):
        directory.mkdir(parents=True, exist_ok=True)
        with artifact.alone(directory / "all"):
            if not artifact.is_current(facts, kind=KIND, config=config, inputs=inputs):
                _make(study, directory, facts, config, inputs)
    said = json.loads((facts / FACTS).read_text())
    return Shared(data=DataFacts(**said["data"]), best=said["best"])


def _make(study: Study, directory: epath.Path, facts: epath.Path, config: Any, inputs: dict[str, str]) -> None:
    prepared = study.system.prepare(directory, study.evaluation_users)
    said = {"data": dataclasses.asdict(prepared.data), "best": _best(study, prepared)}
    artifact.write_artifact(
        facts,
        kind=KIND,
        fingerprint=artifact.fingerprint(said),
        config=config,
        inputs=inputs,
        write=lambda aside: artifact.write_json(aside / FACTS, said),
    )


def _best(study: Study, prepared: Prepared) -> dict[str, float]:
    source = study.system.source
    if not isinstance(source, KnowsTheBest):
        return {}
    best = {f"best_possible_recall@{k}": source.best_possible_recall(k, prepared.users) for k in study.system.ks}
    if prepared.loss_is_of_items:  # else a token sequence is more probable than its item
        best["best_possible_loss"] = source.best_possible_nats(prepared.users) / prepared.data.sid_levels
    return best
