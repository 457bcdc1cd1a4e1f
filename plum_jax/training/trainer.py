"""The one training loop: decoders, RQ-VAEs and whatever comes next are objectives and initialisers handed to it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from plum_jax import artifact
from plum_jax.allocator import keep_freed_memory
from plum_jax.training import checkpoints, processes, saved_params, settings
from plum_jax.training.feeding import Feed, Prefetcher, ShardedFeed, open_feed
from plum_jax.training.interruption import StopRequests
from plum_jax.training.loop import Evaluator, Loop, Maintenance, Progress, Sampler
from plum_jax.training.mesh import batch_sharding
from plum_jax.training.metrics_log import MetricsLog
from plum_jax.training.profiling import StepProfile
from plum_jax.training.speed import Speedometer
from plum_jax.training.step import Initialiser, Objective, initial_state, make_train_step
from plum_jax.training.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A finished run that others branch off, e.g. at a constant rate before each decays (`WarmupStableDecay`).

    Attributes:
      directory: of the run; its last checkpoint has train state, feed and seconds.
      step: of that checkpoint.
      may_differ: names of fingerprints that the branch need not share, besides its configuration's.
    """

    directory: epath.PathLike
    step: int
    may_differ: tuple[str, ...] = ()

    def restore(self, state: Any, inputs: Mapping[str, str]) -> tuple[int, Any, dict[str, Any]]:
        """What a branch begins with, as `Checkpoints.restore_latest` gives it.

        Raises:
          checkpoints.CheckpointMismatch: other inputs, or another step.
        """
        shared = {name: value for name, value in inputs.items() if name not in (*self.may_differ, "config")}
        saver = checkpoints.Checkpoints(self.directory, shared)
        try:
            restored = saver.restore_latest(state)
        finally:
            saver.close()
        if restored is None or restored[0] != self.step:
            found = "none" if restored is None else f"one of step {restored[0]}"
            raise checkpoints.CheckpointMismatch(
                f"expected a checkpoint of step {self.step} in {self.directory} to branch off, found {found}: "
                "train the trunk to that step first"
            )
        return restored


def inputs_of(config: TrainingConfig, fingerprints: Mapping[str, str]) -> dict[str, str]:
    """What a checkpoint is refused by, where it differs."""
    return {**fingerprints, "config": artifact.fingerprint(config)}


def train(
    config: TrainingConfig,
    *,
    directory: epath.PathLike,
    init_params: Initialiser,
    objective: Objective,
    feed: Feed | ShardedFeed,
    fingerprints: Mapping[str, str],
    evaluators: Mapping[str, Evaluator] | None = None,
    step_flops: float | None = None,
    tokens_per_step: int | None = None,
    maintain: Maintenance | None = None,
    maintenance_period: int = 0,
    trunk: Trunk | None = None,
    sampler: Sampler | None = None,
    description: str = "train",
    described: Mapping[str, Any] | None = None,
) -> Any:
    """Trains, or goes on where a killed run of the same directory was, and returns the parameters (host arrays).

    SIGTERM and the first Ctrl-C end the step, save a checkpoint and raise `Stopped`; whatever else ends the process
    costs the work since the last checkpoint. A run that goes on is, bit for bit, the run that was never stopped, on the
    same devices; on another mesh or number of processes it has the same batches. Of several processes
    (`jax.distributed`) all call this, and the first writes what is written once.

    Args:
      config: how.
      directory: gets `metrics.jsonl`, `tensorboard/`, `checkpoints/`, `best/` and, at the end, `params/`; all
        processes see the same one.
      init_params: key -> parameters, with or without logical axis metadata; `FromHost` for a warm start.
      objective: `(params, batch, rng) -> (loss_sum, weight_sum, metrics as (sum, weight))`.
      feed: batches; its iterator's state is part of every checkpoint.
      fingerprints: of all inputs (SidTable, vocabulary, records...); a checkpoint with others is refused.
      evaluators: name -> `(params) -> {metric: value}`; logged as `name/metric`.
      step_flops: model FLOPs of a step over all devices, for the log and the progress bar (`mfu`).
      tokens_per_step: likewise.
      maintain: changes parameters between steps, every `maintenance_period` steps of the first four fifths, e.g.
        restarts dead codes; its metrics are logged.
      maintenance_period: in steps; 0: never.
      trunk: where a run without a checkpoint of its own begins; None: at step 0. With a schedule that is the trunk's up
        to there, it is bit for bit the run that would have trained alone.
      sampler: called at every evaluation, in the first process: what is written beside figures; called again for a step
        that is met again after a kill.
      description: shown on the bar.
      described: configurations whose fields a message names where a run with others is in the directory.

    Raises:
      checkpoints.CheckpointMismatch: the directory holds a run with other inputs.
      checkpoints.CheckpointsDamaged: it has checkpoints, and none is as it was written.
      checkpoints.CheckpointNotSaved: e.g. the disk is full.
      FloatingPointError: the loss is not finite; step and batch are in `bad_batch/`.
      Stopped: by a signal; the same call goes on.
    """
    keep_freed_memory()
    directory = epath.Path(directory)
    done = directory / "params"
    inputs = inputs_of(config, fingerprints)
    if artifact.is_current(done, kind=saved_params.PARAMS_KIND, config=config, inputs=inputs):
        return saved_params.load_params(done, inputs)
    settings.require_same(directory, {"training": config, **(described or {})})

    with contextlib.ExitStack() as closing:
        mesh = config.mesh.build()
        optimizer = config.transformation()
        root_key = jax.random.key(config.seed)
        state = initial_state(init_params, optimizer, root_key, mesh)
        iterator, place = open_feed(feed, batch_sharding(mesh))
        saver = checkpoints.Checkpoints(directory, inputs)
        closing.callback(saver.close)
        restored = saver.restore_latest(state)
        if restored is None and trunk is not None:
            restored = trunk.restore(state, inputs)
        progress = Progress()
        if restored is not None:
            _, state, saved = restored
            iterator.set_state(saved.pop("feed"))
            progress = Progress(**saved)
        start = int(state.step)
        prefetcher = Prefetcher(iterator, place)
        closing.callback(prefetcher.close)
        log = closing.enter_context(MetricsLog(directory, start, tensorboard=config.tensorboard))
        profile = StepProfile(directory / "profile", config.profile_steps, start, config.steps)
        closing.callback(profile.close)
        stop = closing.enter_context(StopRequests())

        loop = Loop(
            config=config,
            directory=directory,
            inputs=inputs,
            step_fn=make_train_step(objective, optimizer, config.microbatches, root_key, mesh, state),
            evaluators=dict(evaluators or {}),
            log=log,
            saver=saver,
            speed=Speedometer(step_flops, tokens_per_step, max(progress.seconds, log.seconds)),
            profile=profile,
            maintain=maintain,
            maintenance_period=maintenance_period,
            description=description,
            sampler=sampler,
        )
        state = loop.run(state, prefetcher, start, progress, stop)
        saver.wait()
    params = loop.best_params() if config.select_by else processes.to_host(state.evaluated)
    saved_params.save_params(done, params, fingerprints=inputs, config=config)
    return params
