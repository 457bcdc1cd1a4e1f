"""The loop over steps: rows of metrics, evaluation, checkpoints, and what ends it early."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from plum_jax import artifact
from plum_jax.training import bad_batch, checkpoints, processes, saved_params
from plum_jax.training.feeding import Batch, Fed, Prefetcher, gathered_state
from plum_jax.training.interruption import StopNow, Stopped, StopRequests
from plum_jax.training.metrics_log import MetricsLog, progress_bar
from plum_jax.training.profiling import StepProfile
from plum_jax.training.speed import Speedometer
from plum_jax.training.step import TrainState
from plum_jax.training.training_config import TrainingConfig

Evaluator = Callable[[Any], dict[str, float]]
# (parameters, step): what is written at an evaluation beside figures.
Sampler = Callable[[Any, int], None]
# (parameters as host arrays, step) -> (parameters of the same shapes, metrics); a function of these alone.
Maintenance = Callable[[Any, int], tuple[Any, dict[str, float]]]
Sums = Mapping[str, tuple[float, float]]  # metric -> (sum, weight)
LAST_MAINTENANCE = 0.8  # of the steps: what is moved later has no time to settle


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a checkpoint keeps beside the train state and the feed's.

    Attributes:
      sums: of the steps since the last row, where the run was stopped between two rows.
      evaluated: whether the evaluation that is due after the checkpoint's step is done.
      seconds: wall time of the run.
    """

    sums: tuple[Sums, ...] = ()
    evaluated: bool = True
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class _Done:
    """A step whose loss has not been looked at: looking would wait for the device."""

    step: int
    sums: Any
    batch: Batch


@dataclasses.dataclass
class Loop:
    """The loop's parts; one instance a call of `train`."""

    config: TrainingConfig
    directory: epath.Path
    inputs: dict[str, str]
    step_fn: Callable
    evaluators: dict[str, Evaluator]
    log: MetricsLog
    saver: checkpoints.Checkpoints
    speed: Speedometer
    profile: StepProfile
    maintain: Maintenance | None
    maintenance_period: int
    description: str
    sampler: Sampler | None = None

    def __post_init__(self) -> None:
        self._unseen: list[_Done] = []
        self._seen: list[Sums] = []  # of the steps since the last row, all finite
        # A best one from before a kill may be of a later step than the checkpoint: it will be met again, and equalled.
        self._best: dict[str, Any] | None = None
        if (self.directory / "best" / artifact.MANIFEST).exists():
            manifest = artifact.read_manifest(self.directory / "best", saved_params.PARAMS_KIND)
            checkpoints.require_same(manifest.inputs, self.inputs, self.directory / "best")
            self._best = manifest.config

    def run(
        self, state: TrainState, feed: Prefetcher, start: int, progress: Progress, stop: StopRequests
    ) -> TrainState:
        """Trains from `start` to the end, or until `patience` or a signal ends it (`Stopped`)."""
        config = self.config
        self._seen = list(progress.sums)
        if not progress.evaluated and not self._evaluate(start, state, stop):
            self._stop(start, stop.received)
        with progress_bar(self.description, start, config.steps) as bar:
            for step in range(start + 1, config.steps + 1):
                if self._stopped_early(step - 1):
                    bar.write(
                        f"{self.description}: {config.select_by} has not improved for {config.patience} evaluations"
                    )
                    break
                with self.speed.waiting():
                    fed = self._next(feed, step)
                with self.profile.step(step):
                    state, sums = self.step_fn(state, fed.device)
                self.profile.after(step, sums)
                self._unseen.append(_Done(step, sums, fed.host))
                self.speed.count()
                bar.update()
                if step == start + 1:
                    jax.block_until_ready(sums)
                    self.speed.restart()  # the first step's time is the compiler's
                # A row ends at every checkpoint too, so that a resumed run's rows are the uninterrupted run's.
                if step % config.log_period == 0 or self._due(step, config.checkpoint_period):
                    bar.set_postfix(_for_the_bar(self._write_row(step, state)))
                state = self._after(step, state, fed, stop)
        return state

    def best_params(self) -> Any:
        """The parameters of the best evaluation."""
        return saved_params.load_params(self.directory / "best", self.inputs)

    def _next(self, feed: Prefetcher, step: int) -> Fed:
        try:
            return next(feed)
        except StopIteration:
            raise ValueError(
                f"{self.description}: the feed ended after {step - 1} batches, expected {self.config.steps}: "
                "train for fewer steps, or for more epochs"
            ) from None

    def _after(self, step: int, state: TrainState, fed: Fed, stop: StopRequests) -> TrainState:
        """What is due between this step and the next one."""
        evaluated = True
        with self.speed.paused():
            if self._maintenance_due(step):
                state = self._maintained(step, state)
            if self._due(step, self.config.evaluation_period):
                evaluated = self._evaluate(step, state, stop)
        asked = stop.after(step)
        if asked is not None or self._due(step, self.config.checkpoint_period):
            self._require_finite(state)
            progress = Progress(tuple(self._seen), evaluated, self.speed.seconds)
            self.saver.save(step, state, {"feed": gathered_state(fed.state), **dataclasses.asdict(progress)})
        if asked is not None:
            self._stop(step, asked)
        return state

    def _stop(self, step: int, asked: signal.Signals | None) -> None:
        assert asked is not None
        self.saver.wait()
        message = (
            f"{self.description}: stopped by {asked.name} after step {step} of {self.config.steps}, which is "
            f"saved in {self.directory / 'checkpoints'}; the same command goes on from there"
        )
        if processes.is_first():
            tqdm.write(message, file=sys.stderr)
        raise Stopped(asked, message)

    def _due(self, step: int, period: int) -> bool:
        return step == self.config.steps or (period > 0 and step % period == 0)

    def _maintenance_due(self, step: int) -> bool:
        period = self.maintenance_period if self.maintain else 0
        return bool(period) and step % period == 0 and step <= LAST_MAINTENANCE * self.config.steps

    def _maintained(self, step: int, state: TrainState) -> TrainState:
        assert self.maintain is not None
        params, row = self.maintain(processes.to_host(state.params), step)
        self.log.write(step, row)
        placed = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), params, state.params)
        return dataclasses.replace(state, params=placed)

    def _evaluate(self, step: int, state: TrainState, stop: StopRequests) -> bool:
        """Whether it was done: a request to stop does not wait for it, and the resumed run begins with it."""
        row: dict[str, float] = {}
        # Evaluators know nothing of other processes: each has all parameters, and what the first one finds counts.
        params = state.evaluated if jax.process_count() == 1 else processes.to_host(state.evaluated)
        try:
            with stop.at_once():
                for name, evaluate in self.evaluators.items():
                    row.update({f"{name}/{metric}": value for metric, value in evaluate(params).items()})
                if self.sampler is not None and processes.is_first():
                    self.sampler(params, step)
        except StopNow:
            return False
        row = processes.from_first(row)
        if row:
            self.log.write(step, row)
        metric = self.config.select_by
        if not metric:
            return True
        if metric not in row:
            raise ValueError(f"expected select_by to be one of {sorted(row)}, got {metric!r}")
        if self._best is None or row[metric] > self._best["value"]:
            self._best = {"step": step, "metric": metric, "value": row[metric]}
            saved_params.save_params(
                self.directory / "best", state.evaluated, fingerprints=self.inputs, config=self._best
            )
        return True

    def _stopped_early(self, step: int) -> bool:
        config = self.config
        if not (config.patience and config.evaluation_period and self._best):
            return False
        return step - self._best["step"] >= config.patience * config.evaluation_period

    def _write_row(self, step: int, state: TrainState) -> dict[str, float]:
        self._require_finite(state)
        self.saver.require_saved()
        row = {**_means(self._seen), **self.speed.row()}
        self.log.write(step, row)
        self._seen = []
        return row

    def _require_finite(self, state: TrainState) -> None:
        """Looks at the steps since the last look.

        Raises:
          FloatingPointError: names the first step whose loss or gradient is not finite; nothing was saved after it.
        """
        fetched: list[Sums] = [
            {name: (float(pair[0]), float(pair[1])) for name, pair in sums.items()}
            for sums in jax.device_get([done.sums for done in self._unseen])
        ]
        number = bad_batch.first_not_finite(fetched)
        if number is None:
            self._seen += fetched
            self._unseen = []
            return
        bad, values = self._unseen[number], fetched[number]
        folder = bad_batch.save(
            self.directory,
            step=bad.step,
            batch=bad.batch,
            recent={done.step: sums for done, sums in zip(self._unseen, fetched, strict=True)},
            params=state.params,
            state_step=self._unseen[-1].step,
            checkpoint=self.saver.latest_step(),
        )
        raise FloatingPointError(
            f"step {bad.step} of {self.directory}: the loss is {values['loss'][0] / max(values['loss'][1], 1e-8)}, the "
            f"norm of its gradient {values['gradient_norm'][0]}: lower the learning rate, or look at the step and its "
            f"batch in {folder}"
        )


def _means(rows: list[Sums]) -> dict[str, float]:
    """Weighted means over the steps since the last row."""
    totals: dict[str, np.ndarray] = {}
    for sums in rows:
        for name, pair in sums.items():
            totals[name] = totals.get(name, np.zeros(2)) + np.asarray(pair)
    return {name: float(total[0] / max(total[1], 1e-8)) for name, total in totals.items()}


def _for_the_bar(row: Mapping[str, float]) -> dict[str, str]:
    shown = {"loss": f"{row['loss']:.3f}"}
    for name, label, form in (
        ("tokens_per_second", "tok/s", "{:,.0f}"),
        ("model_gflops_per_second", "GFLOP/s", "{:.1f}"),
        ("mfu", "MFU", "{:.1%}"),
        ("data_wait_share", "data wait", "{:.1%}"),
    ):
        if name in row:
            shown[label] = form.format(row[name])
    return shown
