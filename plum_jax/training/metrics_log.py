"""Where a run's numbers go: `metrics.jsonl` (the record), TensorBoard (the view) and the progress bar."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from etils import epath
from tqdm import tqdm

from plum_jax import artifact

_RECALL = re.compile(r"validation/recall@\d+(_unseen)?")
BOARD_PERIOD = 20.0  # seconds between flushes: on gs:// each one uploads the whole file


class MetricsLog:
    """Appends rows `{"step": n, name: value, ...}`; a resumed run first drops the rows after its checkpoint.

    Of several processes of a run the first alone writes.

    Args:
      directory: of the run.
      resume_step: the checkpoint's.
      tensorboard: whether the view is written beside the record.

    Attributes:
      seconds: wall time of the rows that were kept, so that a resumed run goes on counting.
    """

    def __init__(self, directory: epath.PathLike, resume_step: int, *, tensorboard: bool = True):
        directory = epath.Path(directory)
        self._path = directory / "metrics.jsonl"
        self._writes = jax.process_index() == 0
        kept = [row for row in read_metrics(directory) if row["step"] <= resume_step]
        self.seconds = seconds_of(kept)
        if self._writes:
            directory.mkdir(parents=True, exist_ok=True)
            artifact.write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
            self._file = self._path.open("a")
            self._board: _Board | None = None  # from the first row on: its import must not keep the first step waiting
            board = functools.partial(_Board, directory / "tensorboard", resume_step + 1)
            self._open_board: Callable[[], _Board | None] = board if tensorboard else lambda: None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row, flushed.

        Raises:
          OSError: it cannot be written, e.g. the disk is full.
        """
        if not self._writes:
            return
        try:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
            self._board = self._board or self._open_board()
            if self._board is not None:
                self._board.write(step, values)
        except OSError as error:
            raise OSError(
                f"the metrics of step {step} could not be written to {self._path.parent} ({error.strerror or error}): "
                "make room; the same command goes on from the last checkpoint"
            ) from error

    def close(self) -> None:
        """Closes both files."""
        if self._writes:
            self._file.close()
            if self._board is not None:
                self._board.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except OSError:
            if error is None:  # else the disk's trouble is no news, or not the first
                raise


class _Board:
    """TensorBoard's event file, written in this thread: tensorboardX's own dies on a full disk, and training waits."""

    def __init__(self, directory: epath.Path, first_step: int):
        # Takes seconds to import where PyTorch is installed, which it looks for.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        directory.mkdir(parents=True, exist_ok=True)
        self._event, self._scalar = Event, scalar
        self._events = EventsWriter(os.fspath(directory / "events"), filename_suffix=f".{os.getpid()}")
        restart = SessionLog(status=SessionLog.START)  # what an earlier process wrote from here on is dropped
        self._events.write_event(Event(wall_time=time.time(), step=first_step, session_log=restart))
        self._flushed = 0.0

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                continue  # a figure that is missing; TensorBoard would warn of it in the middle of the run
            event = self._event(wall_time=time.time(), step=step, summary=self._scalar(name, value))
            self._events.write_event(event)
        if time.time() - self._flushed > BOARD_PERIOD:
            self._events.flush()
            self._flushed = time.time()

    def close(self) -> None:
        self._events.close()


def read_metrics(directory: epath.PathLike) -> list[dict[str, Any]]:
    """The rows of a run's `metrics.jsonl` ([] when there is none); a last line cut short by a kill is left out."""
    path = epath.Path(directory) / "metrics.jsonl"
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def progress_bar(description: str, start: int, steps: int) -> tqdm:
    """A bar over training steps; of several processes the first alone shows it."""
    return tqdm(
        total=steps,
        initial=start,
        desc=description,
        unit="step",
        mininterval=1.0,
        dynamic_ncols=True,
        disable=jax.process_index() != 0,
    )


def seconds_of(rows: Sequence[Mapping[str, Any]]) -> float:
    """Wall time of the run that wrote these rows; 0 where none says."""
    return max((row["seconds"] for row in rows if "seconds" in row), default=0.0)


def training_facts(directory: epath.PathLike, train_flops: float, before: float = 0.0) -> dict[str, Any]:
    """What a finished training's log says in a row of `results.jsonl`.

    Args:
      directory: of the training.
      train_flops: of all its steps.
      before: of the trainings that it goes on from.

    Returns:
      "train_seconds"; and, where validation users are evaluated while training, "validation_curve": columns of one
      length, "step", "train_flops" (with those before), "recall@5", "recall@5_unseen" and so on, as evaluated.
    """
    rows = read_metrics(directory)
    facts: dict[str, Any] = {"train_seconds": round(seconds_of(rows), 1)}
    evaluated = [row for row in rows if any(_RECALL.fullmatch(name) for name in row)]
    if evaluated:
        step_flops = train_flops / rows[-1]["step"]
        curve = {"step": [row["step"] for row in evaluated]}
        curve["train_flops"] = [before + step * step_flops for step in curve["step"]]
        for name in filter(_RECALL.fullmatch, evaluated[-1]):
            curve[name.removeprefix("validation/")] = [row[name] for row in evaluated]
        facts["validation_curve"] = curve
    return facts
