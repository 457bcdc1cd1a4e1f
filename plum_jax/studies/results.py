"""The rows of a study while workers run it: which cells are done, what a failed one leaves, all rows in one file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from plum_jax import artifact
from plum_jax.studies.outcomes import Outcome
from plum_jax.studies.records import cell_directory, record_path, write_record

STATUSES = ("finished", "diverged", "out_of_memory", "timed_out", "failed")
# What the plan knows of a cell and a row may say of one that did not finish; what it did not do is left out, not 0.
KNOWN_BEFORE = (
    "study",
    "size",
    "budget",
    "horizon",
    "seed",
    "learning_rate",
    "learning_rate_factor",
    "batch_tokens",
    "unique_tokens",
    "parameters",
    "non_embedding_parameters",
    "activated_parameters",
    "activated_non_embedding_parameters",
    "flops_convention",
)


@dataclasses.dataclass(frozen=True)
class PlannedCell:
    """One cell of plan.json.

    Attributes:
      name: its id.
      held_out: whether it may start only after the forecast.
      facts: all that the plan says of it, and of all cells.
    """

    name: str
    held_out: bool
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class StudyFiles:
    """The files of a study's directory that workers read and write."""

    def __init__(self, directory: str | os.PathLike[str]):
        self.directory = epath.Path(directory)
        self.claims = self.directory / "claims"
        self.forecast = self.directory / "forecast.json"
        self.results = self.directory / "results.jsonl"

    def cell(self, name: str) -> epath.Path:
        """The directory of a cell's run."""
        return epath.Path(cell_directory(self.directory, name))

    def planned(self) -> list[PlannedCell]:
        """The cells of plan.json in its order.

        Raises:
          ValueError: there is no plan, or it is none.
        """
        path = self.directory / "plan.json"
        try:
            plan = json.loads(path.read_text())
            common = {key: plan.get(key) for key in ("study", "flops_convention")}
            common["unique_tokens"] = plan.get("data", {}).get("unique_tokens")
            return [PlannedCell(cell["cell_id"], bool(cell["held_out"]), common | cell) for cell in plan["cells"]]
        except FileNotFoundError:
            raise ValueError(f"there is no {path}: plan the study first (gin/run/study_plan.gin)") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: expected 'cells', each with 'cell_id' and 'held_out'; got {type(error).__name__}: {error}"
            ) from None

    def row(self, name: str, say: Callable[[str], None] = print) -> dict[str, Any] | None:
        """A cell's row; None: it is not done. A record that is none is put beside, and the cell counts as not done."""
        try:
            return self._read_row(name)
        except (ValueError, KeyError, TypeError) as error:
            path = record_path(self.directory, name)
            beside = path.with_name(f"record.unreadable-{secrets.token_hex(4)}.json")
            with contextlib.suppress(FileNotFoundError):  # another worker was faster
                path.rename(beside)
                say(
                    f"{path}: expected the row of cell {name} with a status of {', '.join(STATUSES)}; got "
                    f"{type(error).__name__}: {error}. It is now {beside.name}, and the cell will run again"
                )
            return None

    def peek(self, name: str) -> dict[str, Any] | None:
        """A cell's row; None: there is none, or none that can be read. Changes nothing."""
        try:
            return self._read_row(name)
        except (ValueError, KeyError, TypeError):
            return None

    def _read_row(self, name: str) -> dict[str, Any] | None:
        try:
            row = json.loads(record_path(self.directory, name).read_text())
        except FileNotFoundError:
            return None
        if row["name"] != name or row["status"] not in STATUSES:
            raise ValueError(f"name {row['name']!r}, status {row['status']!r}")
        return row

    def write_failure(self, cell: PlannedCell, outcome: Outcome, attempts: int, wall_seconds: float) -> None:
        """The row of a cell that left none, unless one is there by now: a row is written once."""
        row = {"name": cell.name, "held_out": cell.held_out}
        row |= {key: cell.facts[key] for key in KNOWN_BEFORE if cell.facts.get(key) is not None}
        row |= {"status": outcome.status, "reason": outcome.reason, "attempts": attempts}
        row |= {"wall_seconds": round(wall_seconds, 1), "python": platform.python_version()}
        path = record_path(self.directory, cell.name)
        with artifact.alone(self.results):
            if not path.exists():
                write_record(self.directory, row)

    def collect(self) -> list[dict[str, Any]]:
        """Writes results.jsonl, the rows of all cells by name, and returns them."""
        with artifact.alone(self.results):
            cells = self.directory / "cells"
            names = sorted(path.name for path in cells.iterdir()) if cells.exists() else []
            rows = [row for name in names if (row := self.row(name)) is not None]
            artifact.write_text(self.results, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
        return rows
