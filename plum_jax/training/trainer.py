"""The one training loop: decoders, RQ-VAEs and whatever comes next are objectives and initialisers handed to it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from plum_jax import artifact
from plum_jax.allocator import keep_freed_memory
from plum_jax.training import checkpoints
from plum_jax.training.mesh import MeshShape, batch_sharding
from plum_jax.training.metrics_log import MetricsLog, progress_bar
from plum_jax.training.optimizer import AdamW, Optimizer
from plum_jax.training.step import Initialiser, Objective, TrainState, initial_state, make_train_step

Evaluator = Callable[[Any], dict[str, float]]
# (parameters as host arrays, step) -> (parameters of the same shapes, metrics); a function of these alone.
Maintenance = Callable[[Any, int], tuple[Any, dict[str, float]]]
LAST_MAINTENANCE = 0.8  # of the steps: what is moved later has no time to settle


class Feed(Protocol):
    """What training reads: an endless iterator of batches whose state can be saved."""

    def make_iterator(self) -> Any:
        """An iterator with `get_state()` and `set_state(state)` besides `__next__`."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How long and how a run trains.

    Attributes:
      steps: optimizer steps.
      optimizer: AdamW or Adafactor with its schedule.
      seed: of initialisation and dropout, folded by name and by step.
      microbatches: a batch is cut into this many pieces whose gradients are summed (gradient accumulation).
      checkpoint_period, evaluation_period, log_period: in steps; evaluation 0 means only at the end.
      select_by: metric of the evaluators whose best parameters are returned; "" returns the last.
      patience: stop when `select_by` has not improved for this many evaluations; 0 never stops early.
      mesh: devices along each axis.
    """

    steps: int = 1000
    optimizer: Optimizer = AdamW()
    seed: int = 0
    microbatches: int = 1
    checkpoint_period: int = 500
    evaluation_period: int = 0
    log_period: int = 20
    select_by: str = ""
    patience: int = 0
    mesh: MeshShape = MeshShape()


def train(
    config: TrainingConfig,
    *,
    directory: epath.PathLike,
    init_params: Initialiser,
    objective: Objective,
    feed: Feed,
    fingerprints: Mapping[str, str],
    evaluators: Mapping[str, Evaluator] | None = None,
    step_flops: float | None = None,
    tokens_per_step: int | None = None,
    maintain: Maintenance | None = None,
    maintenance_period: int = 0,
    description: str = "train",
) -> Any:
    """Trains, or goes on where a killed run of the same directory was, and returns the parameters (host arrays).

    Args:
      config: how.
      directory: gets `metrics.jsonl`, `tensorboard/`, `checkpoints/`, `best/` and, at the end, `params/`.
      init_params: key -> parameters, with or without logical axis metadata; `FromHost` for a warm start.
      objective: `(params, batch, rng) -> (loss_sum, weight_sum, metrics as (sum, weight))`.
      feed: batches; its iterator's state is part of every checkpoint.
      fingerprints: of all inputs (SidTable, vocabulary, records...); a checkpoint with others is refused.
      evaluators: name -> `(params) -> {metric: value}`; logged as `name/metric`.
      step_flops: model FLOPs of a step, for the progress bar and the log.
      tokens_per_step: likewise.
      maintain: changes parameters between steps, every `maintenance_period` steps of the first four fifths, e.g.
        restarts dead codes; its metrics are logged.
      maintenance_period: in steps; 0: never.
      description: shown on the bar.

    Raises:
      checkpoints.CheckpointMismatch: the directory holds a run with other inputs.
      FloatingPointError: the loss is not finite.
    """
    keep_freed_memory()
    directory = epath.Path(directory)
    done = directory / "params"
    inputs = {**fingerprints, "config": artifact.fingerprint(config)}
    if artifact.is_current(done, kind=checkpoints.PARAMS_KIND, config=config, inputs=inputs):
        return checkpoints.load_params(done, inputs)

    mesh = config.mesh.build()
    optimizer = config.optimizer.build(config.steps)
    root_key = jax.random.key(config.seed)
    state = initial_state(init_params, optimizer, root_key, mesh)
    iterator = feed.make_iterator()
    saver = checkpoints.Checkpoints(directory, inputs)
    restored = saver.restore_latest(state)
    if restored is not None:
        _, state, feed_state = restored
        iterator.set_state(feed_state)
    start = int(state.step)

    loop = _Loop(
        config=config,
        directory=directory,
        inputs=inputs,
        step_fn=make_train_step(objective, optimizer, config.microbatches, root_key, mesh, state),
        evaluators=dict(evaluators or {}),
        log=MetricsLog(directory, start),
        saver=saver,
        mesh=mesh,
        step_flops=step_flops,
        tokens_per_step=tokens_per_step,
        maintain=maintain,
        maintenance_period=maintenance_period,
    )
    try:
        state = loop.run(state, iterator, start, description)
    finally:
        saver.close()
        loop.log.close()
    params = loop.best_params() if config.select_by else jax.device_get(state.params)
    checkpoints.save_params(done, params, fingerprints=inputs, config=config)
    return params


@dataclasses.dataclass
class _Loop:
    """The loop's parts; one instance a call of `train`."""

    config: TrainingConfig
    directory: epath.Path
    inputs: dict[str, str]
    step_fn: Callable
    evaluators: dict[str, Evaluator]
    log: MetricsLog
    saver: checkpoints.Checkpoints
    mesh: Mesh
    step_flops: float | None
    tokens_per_step: int | None
    maintain: Maintenance | None
    maintenance_period: int

    def __post_init__(self) -> None:
        # A best one from before a kill may be of a later step than the checkpoint: it will be met again, and equalled.
        self._best: dict[str, Any] | None = None
        if (self.directory / "best" / artifact.MANIFEST).exists():
            manifest = artifact.read_manifest(self.directory / "best", checkpoints.PARAMS_KIND)
            checkpoints.require_same(manifest.inputs, self.inputs, self.directory / "best")
            self._best = manifest.config

    def run(self, state: TrainState, iterator: Any, start: int, description: str) -> TrainState:
        config = self.config
        pending: list[dict] = []
        began = window = time.perf_counter()
        with progress_bar(description, start, config.steps) as bar:
            for step in range(start + 1, config.steps + 1):
                if self._stopped_early(step - 1):
                    bar.write(f"{description}: {config.select_by} has not improved for {config.patience} evaluations")
                    break
                batch = jax.device_put(next(iterator), batch_sharding(self.mesh))
                state, sums = self.step_fn(state, batch)
                pending.append(sums)
                bar.update()
                # A row ends at every checkpoint too, so that a resumed run's rows are the uninterrupted run's.
                if step % config.log_period == 0 or self._due(step, config.checkpoint_period):
                    row = _means(pending)
                    self._require_finite(row, step)
                    row.update(self._speed(len(pending), time.perf_counter() - window))
                    row["seconds"] = self.log.seconds + time.perf_counter() - began
                    self.log.write(step, row)
                    bar.set_postfix(_for_the_bar(row))
                    pending, window = [], time.perf_counter()
                paused = time.perf_counter()
                if self._maintenance_due(step):
                    state = self._maintained(step, state)
                if self._due(step, config.evaluation_period):
                    self._evaluate(step, state)
                window += time.perf_counter() - paused  # speed is that of training alone
                if self._due(step, config.checkpoint_period):
                    self.saver.save(step, state, iterator.get_state())
        return state

    def _due(self, step: int, period: int) -> bool:
        return step == self.config.steps or (period > 0 and step % period == 0)

    def _maintenance_due(self, step: int) -> bool:
        period = self.maintenance_period if self.maintain else 0
        return bool(period) and step % period == 0 and step <= LAST_MAINTENANCE * self.config.steps

    def _maintained(self, step: int, state: TrainState) -> TrainState:
        assert self.maintain is not None
        params, row = self.maintain(jax.device_get(state.params), step)
        self.log.write(step, row)
        placed = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), params, state.params)
        return dataclasses.replace(state, params=placed)

    def _evaluate(self, step: int, state: TrainState) -> None:
        row: dict[str, float] = {}
        for name, evaluate in self.evaluators.items():
            row.update({f"{name}/{metric}": value for metric, value in evaluate(state.params).items()})
        if row:
            self.log.write(step, row)
        metric = self.config.select_by
        if not metric:
            return
        if metric not in row:
            raise ValueError(f"expected select_by to be one of {sorted(row)}, got {metric!r}")
        if self._best is None or row[metric] > self._best["value"]:
            self._best = {"step": step, "metric": metric, "value": row[metric]}
            params = jax.device_get(state.params)
            checkpoints.save_params(self.directory / "best", params, fingerprints=self.inputs, config=self._best)

    def _stopped_early(self, step: int) -> bool:
        config = self.config
        if not (config.patience and config.evaluation_period and self._best):
            return False
        return step - self._best["step"] >= config.patience * config.evaluation_period

    def best_params(self) -> Any:
        """The parameters of the best evaluation."""
        return checkpoints.load_params(self.directory / "best", self.inputs)

    def _speed(self, steps: int, seconds: float) -> dict[str, float]:
        speed = {"steps_per_second": steps / seconds}
        if self.tokens_per_step:
            speed["tokens_per_second"] = self.tokens_per_step * steps / seconds
        if self.step_flops:
            speed["model_gflops_per_second"] = self.step_flops * steps / seconds / 1e9
        return speed

    def _require_finite(self, row: Mapping[str, float], step: int) -> None:
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(
                f"the loss became {row['loss']} in the {self.config.log_period} steps before step {step} "
                f"of {self.directory}: lower the learning rate, or look at the batches since the last checkpoint"
            )


def _means(pending: list[dict]) -> dict[str, float]:
    """Weighted means over the steps since the last row."""
    pending = jax.device_get(pending)
    totals: dict[str, np.ndarray] = {}
    for sums in pending:
        for name, pair in sums.items():
            totals[name] = totals.get(name, np.zeros(2)) + np.asarray([float(pair[0]), float(pair[1])])
    return {name: float(total[0] / max(total[1], 1e-8)) for name, total in totals.items()}


def _for_the_bar(row: Mapping[str, float]) -> dict[str, str]:
    shown = {"loss": f"{row['loss']:.3f}"}
    if "tokens_per_second" in row:
        shown["tok/s"] = f"{row['tokens_per_second']:,.0f}"
    if "model_gflops_per_second" in row:
        shown["GFLOP/s"] = f"{row['model_gflops_per_second']:.1f}"
    return shown
