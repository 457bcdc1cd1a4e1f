"""How fast training goes: tokens/s, model FLOPs against the peak (MFU), and the share of time it waits for data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from plum_jax.training import chips

# Every name in a metrics row that depends on the clock; all others are the same in every run.
SPEED_METRICS = (
    "steps_per_second",
    "tokens_per_second",
    "model_gflops_per_second",
    "mfu",
    "data_wait_share",
    "seconds",
)


class Speedometer:
    """Times the steps since the last row; what is done between steps (evaluation, saving) is left out.

    Args:
      step_flops: FLOPs that the model needs for a step on all devices (no recomputation), or None.
      tokens_per_step: likewise.
      seconds: wall time of the run before this process.
    """

    def __init__(self, step_flops: float | None, tokens_per_step: int | None, seconds: float = 0.0):
        self._step_flops = step_flops
        self._tokens_per_step = tokens_per_step
        self._peak = chips.peak_flops_per_second() if step_flops else None
        self._began = time.perf_counter() - seconds
        self.restart()

    @property
    def seconds(self) -> float:
        """Wall time of the run up to now."""
        return time.perf_counter() - self._began

    def restart(self) -> None:
        """Begins a new row."""
        self._steps = 0
        self._waited = 0.0
        self._window = time.perf_counter()

    def count(self) -> None:
        """One more step."""
        self._steps += 1

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, the step waits for its data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, no training is done."""
        began = time.perf_counter()
        yield
        self._window += time.perf_counter() - began

    def row(self) -> dict[str, float]:
        """The figures since the last row, which ends here; of no step: `seconds` alone."""
        steps = self._steps
        elapsed = time.perf_counter() - self._window
        row: dict[str, float] = {}
        if steps:
            row = {"steps_per_second": steps / elapsed, "data_wait_share": self._waited / elapsed}
            if self._tokens_per_step:
                row["tokens_per_second"] = self._tokens_per_step * steps / elapsed
            if self._step_flops:
                row["model_gflops_per_second"] = self._step_flops * steps / elapsed / 1e9
                if self._peak:
                    row["mfu"] = self._step_flops * steps / elapsed / self._peak
        row["seconds"] = self.seconds
        self.restart()
        return row
