"""Which windows of long histories train: the latest alone, all of them, or epochs of both by turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

Kind = Literal["latest", "sliding", "mixed"]


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows over each user's events (sliding-window training, arXiv 2409.14517).

    "latest": the last `length` events of each user, every epoch. "sliding": every window of `length` that ends at the
    user's last event, `stride` events before it, and so on, until one begins at the first event. "mixed": an epoch of
    the first, an epoch of the second, by turns; the paper's Mixed-500 has a `reach` of 500.

    Attributes:
      kind: see above.
      length: events of a window.
      stride: from one window to the one before; less than `length` lets windows overlap.
      reach: the latest events that windows are made of; None: all.
    """

    kind: Kind = "sliding"
    length: int = 100
    stride: int = 100
    reach: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"expected kind of windows to be one of {get_args(Kind)}, got {self.kind!r}")
        if not 1 <= self.stride <= self.length:
            raise ValueError(
                f"expected a stride of 1 to length {self.length}, so that no event is left out, got {self.stride}"
            )
        if self.reach is not None and self.reach < self.length:
            raise ValueError(f"expected a reach of at least length {self.length}, or None, got {self.reach}")

    def latest(self, lengths: Sequence[int]) -> list[np.ndarray]:
        """One window of each user of so many events, as places in all of them; users without any have none."""
        ends = np.cumsum(lengths)
        return [
            np.arange(end - min(length, self.length), end) for end, length in zip(ends, lengths, strict=True) if length
        ]

    def sliding(self, lengths: Sequence[int]) -> list[np.ndarray]:
        """All windows, each user's latest first."""
        windows = []
        for end, length in zip(np.cumsum(lengths).tolist(), lengths, strict=True):
            first = end - min(length, length if self.reach is None else self.reach)
            stop = end
            while stop > first:
                begin = max(stop - self.length, first)
                windows.append(np.arange(begin, stop))
                if begin == first:
                    break
                stop -= self.stride
        return windows
