"""One training of a run as it lies in its directory: its last checkpoint, or one that another program made."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Any

import jax
from etils import epath

from plum_jax import artifact, guard
from plum_jax.feeds.batches import TokenBatches
from plum_jax.systems.generative.phase import Phase, feed_of, fingerprints_of
from plum_jax.systems.generative.pipeline import GenerativeStages
from plum_jax.training import checkpoints
from plum_jax.training.initial import initial_params
from plum_jax.training.loop import Progress
from plum_jax.training.step import TrainState, initial_state
from plum_jax.training.trainer import inputs_of

PHASES = ("cpt", "retrieval")


@dataclasses.dataclass(frozen=True)
class PhaseRun:
    """A phase of a run's training.

    Attributes:
      stages: of the run.
      name: "cpt" or "retrieval".
    """

    stages: GenerativeStages
    name: str

    def __post_init__(self) -> None:
        if self.name not in PHASES:
            raise guard.RunError(f"expected PHASE to be one of {PHASES}, got {self.name!r}")

    @property
    def phase(self) -> Phase:
        return self.stages.config.cpt if self.name == "cpt" else self.stages.config.retrieval

    @property
    def directory(self) -> epath.Path:
        return self.stages.directory / "train" / self.name

    @functools.cached_property
    def _feed(self) -> TokenBatches:
        records = self.stages.cpt_records if self.name == "cpt" else self.stages.retrieval_records
        return feed_of(self.phase, records, self.stages.vocabulary.start_id)

    @functools.cached_property
    def _inputs(self) -> dict[str, str]:
        """What a checkpoint of this training must have been made from.

        Raises:
          RunError: it begins with what CPT has not ended with yet.
        """
        stages = self.stages
        before = stages.first_fingerprint
        if self.name == "retrieval":
            if not (stages.directory / "train" / "cpt" / "params").exists():
                raise guard.RunError(
                    f"{stages.directory} has no parameters after CPT, with which retrieval begins: train CPT first, or "
                    "import its last step (PHASE = 'cpt')"
                )
            before = artifact.tree_fingerprint(stages.cpt_params)
        made_from = {"sid_table": stages.table.fingerprint, "vocabulary": stages.vocabulary.fingerprint}
        fingerprints = fingerprints_of(self.phase, stages.decoder, self._feed, made_from, before)
        return inputs_of(self.phase.training, fingerprints)

    def last(self) -> TrainState:
        """The train state of the newest checkpoint.

        Raises:
          RunError: there is none.
        """
        if not (self.directory / "checkpoints").exists():
            raise guard.RunError(f"there is no checkpoint in {self.directory}: train that phase first")
        with self._saver() as saver:
            restored = saver.restore_latest(self._fresh())
        if restored is None:
            raise guard.RunError(f"there is no checkpoint in {self.directory}: train that phase first")
        return restored[1]

    def put(self, step: int, params: Any, slots: Any | None) -> None:
        """Leaves a checkpoint of `step` that this run's training goes on from, as if it had made it.

        The feed is where it would be after so many steps: what is learnt next is what comes next.

        Args:
          step: finished steps; slots None make it 0.
          params: host arrays.
          slots: the optimizer's state; None: new ones.

        Raises:
          RunError: the run has checkpoints of its own there.
        """
        if (self.directory / "checkpoints").exists() or (self.directory / "params").exists():
            raise guard.RunError(
                f"{self.directory} has been trained here already: delete it, or take another MODEL_DIR with the same "
                "settings (gin/run/prepare.gin)"
            )
        fresh = self._fresh()
        placed = jax.tree.map(lambda old, new: jax.device_put(new, old.sharding), fresh.params, params)
        state = fresh.replace(params=placed)  # type: ignore[attr-defined]
        if slots is not None:
            own = jax.tree.map(lambda old, new: jax.device_put(new, old.sharding), fresh.optimizer_state, slots)
            number = jax.device_put(jax.numpy.int32(step), fresh.step.sharding)
            state = state.replace(step=number, optimizer_state=own)
        finished = int(state.step)
        iterator = self._feed.make_iterator()
        for _ in range(finished):
            next(iterator)
        progress = {**dataclasses.asdict(Progress()), "feed": iterator.get_state()}
        with self._saver() as saver:
            saver.save(finished, state, progress)
            saver.wait()

    def _fresh(self) -> TrainState:
        training = self.phase.training
        init = initial_params(self.stages.decoder)
        return initial_state(init, training.transformation(), jax.random.key(training.seed), training.mesh.build())

    def _saver(self) -> Any:
        return contextlib.closing(checkpoints.Checkpoints(self.directory, self._inputs))
