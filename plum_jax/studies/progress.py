"""How far a study is: its cells by budget and size, FLOPs and time spent and left; read from its files alone."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import threading
import time
from collections import Counter
from typing import Any, TextIO

from plum_jax.studies.claims import Claims, holder_is_dead
from plum_jax.studies.results import PlannedCell, StudyFiles

LETTERS = {"finished": "+", "running": "~", "waiting": ".", "held out": "*"}
FAILED = "x"
LEGEND = "+ finished   ~ running   x failed   . waiting   * held out, waiting"
REDRAW_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class CellState:
    """One cell at one moment.

    Attributes:
      cell: as planned.
      state: a row's status, else "running", "waiting" or "held out" (waiting, too).
      row: of a cell that is done.
      elapsed: seconds that a running cell has been held.
    """

    cell: PlannedCell
    state: str
    row: dict[str, Any] | None = None
    elapsed: float = 0.0

    @property
    def predicted(self) -> float:
        """Seconds by the plan; 0 where it does not say."""
        return self.cell.facts.get("predicted_seconds") or 0.0


def states(files: StudyFiles) -> list[CellState]:
    """All cells of the plan in its order."""
    claims = Claims(files.claims) if files.claims.exists() else None
    found = []
    for cell in files.planned():
        row = files.peek(cell.name)
        links = claims.chain(cell.name) if claims and row is None else []
        facts = links[-1].facts if links else None
        if row is not None:
            found.append(CellState(cell, row["status"], row))
        elif facts and "outcome" not in facts and not holder_is_dead(facts):
            found.append(CellState(cell, "running", elapsed=max(0.0, facts["heartbeat"] - facts["taken"])))
        else:
            found.append(CellState(cell, "held out" if cell.held_out else "waiting"))
    return found


def remaining_seconds(cells: list[CellState]) -> tuple[float, float]:
    """Seconds until the last cell is done, and measured over predicted seconds of the finished ones (1 if none).

    As many cells at a time as run now are assumed, and never less time than the longest one needs.
    """
    finished = [c for c in cells if c.state == "finished" and c.predicted and c.row and c.row.get("wall_seconds")]
    predicted = sum(c.predicted for c in finished)
    ratio = sum(c.row["wall_seconds"] for c in finished if c.row) / predicted if predicted else 1.0
    left = [max(0.0, c.predicted * ratio - c.elapsed) for c in cells if c.row is None]
    at_once = max(1, sum(c.state == "running" for c in cells))
    return max(sum(left) / at_once, max(left, default=0.0)), ratio


def status_text(files: StudyFiles) -> str:
    """A head line, one line a budget with a sign for every cell, FLOPs and time."""
    cells = states(files)
    counts = Counter(c.state for c in cells)
    failed = {name: counts[name] for name in ("diverged", "out_of_memory", "timed_out", "failed") if counts[name]}
    done = counts["finished"] + sum(failed.values())
    parts = [f"{done} of {len(cells)} cells done"]
    parts += [f"{count} {name}" for name, count in failed.items()]
    parts += [f"{counts[name]} {name}" for name in ("running", "waiting", "held out") if counts[name]]
    lines = [f"{cells[0].cell.facts.get('study') if cells else ''}: {', '.join(parts)}", *_grid(cells), LEGEND]
    flops = [(c.cell.facts.get("flops") or 0.0, c.state) for c in cells]
    spent = sum(value for value, state in flops if state == "finished")
    left = sum(value for value, state in flops if state in ("running", "waiting", "held out"))
    seconds, ratio = remaining_seconds(cells)
    lines.append(f"FLOPs: {spent:.3g} spent by finished cells, {left:.3g} left")
    if left:
        lines.append(f"time: about {duration(seconds)} left (cells took {ratio:.2f} times what was planned)")
    lines += [
        f"{c.cell.name}: {c.state} after {c.row.get('attempts', 1)} attempts: {c.row['reason']}"
        for c in cells
        if c.row is not None and c.state in failed
    ]
    return "\n".join(lines)


def study_status(model_dir: str) -> None:
    """The job of gin/run/study_status.gin: prints how far the study in STUDY_DIR is."""
    print(status_text(StudyFiles(model_dir)))


def _grid(cells: list[CellState]) -> list[str]:
    """Budgets (or horizons) down, sizes across; a sign for each seed and trial."""
    sizes = list(dict.fromkeys(c.cell.facts["size"] for c in sorted(cells, key=_parameters)))
    budgets = sorted({_group(c) for c in cells})
    table = [["", *sizes]]
    for budget in budgets:
        row = [f"{budget:.3g}"]
        for size in sizes:
            here = [c for c in cells if (_group(c), c.cell.facts["size"]) == (budget, size)]
            row.append("".join(LETTERS.get(c.state, FAILED) for c in here))
        table.append(row)
    widths = [max(len(row[i]) for row in table) for i in range(len(sizes) + 1)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _group(state: CellState) -> float:
    return state.cell.facts.get("horizon") or state.cell.facts["budget"]


def _parameters(state: CellState) -> float:
    return state.cell.facts.get("parameters") or 0.0


def duration(seconds: float) -> str:
    """ "12 s", "3 min 20 s" or "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class LiveTable:
    """The status below the lines that workers say: redrawn in place on a terminal, else printed after each cell."""

    def __init__(self, files: StudyFiles, stream: TextIO | None = None):
        self._files, self._stream = files, stream or sys.stdout
        self._live = self._stream.isatty()
        self._lock = threading.Lock()
        self._height, self._drawn = 0, 0.0

    def say(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._clear()
            print(text, file=self._stream, flush=True)
            self._drawn = 0.0

    def cell_done(self) -> None:
        """To be called after each cell."""
        with self._lock:
            self._draw()

    def tick(self) -> None:
        """To be called often."""
        with self._lock:
            if self._live and time.monotonic() - self._drawn > REDRAW_SECONDS:
                self._draw()

    def _draw(self) -> None:
        text = status_text(self._files)
        if self._live:  # a line that wraps would be two
            width = shutil.get_terminal_size().columns - 1
            text = "\n".join(line[:width] for line in text.splitlines())
        self._clear()
        print(text, file=self._stream, flush=True)
        self._height, self._drawn = text.count("\n") + 1, time.monotonic()

    def _clear(self) -> None:
        if self._live and self._height:
            self._stream.write(f"\x1b[{self._height}F\x1b[J")
        self._height = 0
