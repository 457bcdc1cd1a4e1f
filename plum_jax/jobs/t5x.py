"""Jobs that carry a training between plum and T5X: the next step may be either's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax

from plum_jax.systems.generative.phase_run import PhaseRun
from plum_jax.systems.generative.pipeline import Pipeline

if TYPE_CHECKING:
    from plum_jax.interop.t5x.optimizer_def import OptimizerDef


def to_t5x(model_dir: str, pipeline: Pipeline, phase: str = "retrieval") -> None:
    """The newest checkpoint of a phase as T5X's, MODEL_DIR/t5x/<phase>/checkpoint_<step>, with step and slots.

    Args:
      model_dir: of the run.
      pipeline: all stages.
      phase: "cpt" or "retrieval".
    """
    from plum_jax.interop.t5x import checkpoints  # T5X: only where somebody asks for it

    run = PhaseRun(pipeline.stages(model_dir), phase)
    state = run.last()
    written = checkpoints.write_checkpoint(
        run.stages.directory / "t5x" / phase,
        run.stages.decoder,
        _optimizer_def(run),
        step=int(state.step),
        params=jax.device_get(state.params),
        slots=jax.device_get(state.optimizer_state),
        mesh_shape=run.phase.training.mesh,
    )
    print(f"written for T5X: {written}")


def from_t5x(model_dir: str, pipeline: Pipeline, checkpoint: str, phase: str = "cpt") -> None:
    """A T5X checkpoint as that of a phase of a prepared run, which `plum` then trains on from.

    Args:
      model_dir: of the run, whose phase has not been trained here.
      pipeline: all stages.
      checkpoint: directory checkpoint_<step>.
      phase: "cpt" or "retrieval".

    Raises:
      InteropError: a checkpoint of another architecture.
      RunError: the phase has been trained here.
    """
    from plum_jax.interop.t5x import checkpoints
    from plum_jax.interop.t5x.parameters import shapes_of

    run = PhaseRun(pipeline.stages(model_dir), phase)
    read = checkpoints.read_checkpoint(checkpoint)
    checkpoints.require_architecture(read.params, shapes_of(run.stages.decoder), checkpoint)
    slots = checkpoints.slots_for(_optimizer_def(run), read.params, read.slots)
    if slots is None:
        print(f"the slots of {checkpoint} are another optimizer's: {phase} begins with its parameters, at step 0")
    run.put(read.step, read.params, slots)
    steps = run.phase.training.steps
    print(f"{phase} goes on from step {read.step if slots is not None else 0} of {steps}: give the run's own command")


def _optimizer_def(run: PhaseRun) -> OptimizerDef:
    from plum_jax.interop.t5x import optimizer_def

    training = run.phase.training
    return optimizer_def.OptimizerDef(training.optimizer, training.steps, training.ema_decay)
