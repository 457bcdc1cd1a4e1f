"""Where a run's numbers go: `metrics.jsonl` (the record), TensorBoard (the view) and the progress bar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tensorboardX
from etils import epath
from tqdm import tqdm

from plum_jax import artifact


class MetricsLog:
    """Appends rows `{"step": n, name: value, ...}`; a resumed run first drops the rows after its checkpoint.

    Attributes:
      seconds: wall time of the rows that were kept, so that a resumed run goes on counting.
    """

    def __init__(self, directory: epath.PathLike, resume_step: int):
        directory = epath.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "metrics.jsonl"
        kept = [row for row in read_metrics(directory) if row["step"] <= resume_step]
        self.seconds = max((row["seconds"] for row in kept if "seconds" in row), default=0.0)
        artifact.write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._path.open("a")
        self._board = tensorboardX.SummaryWriter(str(directory / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row, flushed."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        self._board.close()


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
    """A bar over training steps."""
    return tqdm(total=steps, initial=start, desc=description, unit="step", mininterval=1.0, dynamic_ncols=True)
