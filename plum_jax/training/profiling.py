"""`plum --profile`: a trace of a few steps after warm-up, for Perfetto and TensorBoard."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

WARM_UP = 5  # steps of this process before the trace: compilation, first touches of memory


class StepProfile:
    """Traces `steps` steps into `directory`; 0: none. Each process of a run writes its own trace."""

    def __init__(self, directory: epath.Path, steps: int, start: int, end: int):
        self._directory = directory
        self._first = max(start + 1, min(start + 1 + WARM_UP, end - steps + 1))
        self._last = min(self._first + steps - 1, end)
        self._tracing = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around the dispatch of step `number`."""
        if number == self._first and self._last >= self._first:
            self._directory.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(str(self._directory), create_perfetto_trace=True)
            self._tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def after(self, number: int, outputs: Any) -> None:
        """Ends the trace when the last of its steps has computed."""
        if self._tracing and number == self._last:
            jax.block_until_ready(outputs)
            self.close()

    def close(self) -> None:
        """Ends a trace under way."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
