"""SIGTERM (preemption) and Ctrl-C: the loop finishes its step, saves, and the process ends with the usual exit code."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils


class Stopped(SystemExit):
    """Training was asked to stop and has saved; uncaught, it ends the process with 128 + signal: 143 or 130."""

    def __init__(self, received: signal.Signals, message: str):
        super().__init__(128 + received)
        self.message = message

    def __str__(self) -> str:
        return self.message


class StopNow(BaseException):
    """Raised where `StopRequests.at_once` allows it."""


class StopRequests:
    """Notes SIGTERM and the first Ctrl-C while it is entered; a second Ctrl-C is Python's KeyboardInterrupt.

    Several processes must stop after the same step, so there the notice is JAX's: its preemption service hears SIGTERM
    on any of them, and lets all agree on a step. Outside the main thread Python has no signals: nothing is noted.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._replaced: dict[signal.Signals, Any] = {}
        self._at_once = False

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
            self._replaced[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._receive)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._replaced[signal.SIGINT] = signal.signal(signal.SIGINT, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._replaced.clear()

    def _receive(self, number: int, frame: object) -> None:
        self.received = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._replaced.pop(signal.SIGINT))
        if self._at_once:
            raise StopNow

    def after(self, step: int) -> signal.Signals | None:
        """The signal for which training has to stop after this step; to be asked once a step."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.received = signal.SIGTERM
        return self.received

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a request raises `StopNow`: for work that can be done again."""
        self._at_once = True
        try:
            if self.received is not None:
                raise StopNow
            yield
        finally:
            self._at_once = False
