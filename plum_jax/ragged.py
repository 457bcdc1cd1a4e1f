"""Ragged: many rows of different lengths in one array, so that a few numpy calls render thousands of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import polars as pl


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged:
    """R rows laid one after another.

    Attributes:
      values: [sum of lengths], int32 tokens or float32 weights.
      lengths: int64 [R], may be 0.
    """

    values: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """int64 [R]: where each row begins in `values`."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def places(self) -> np.ndarray:
        """int64 [values]: the place of each value in its row."""
        return np.arange(len(self.values)) - np.repeat(self.starts, self.lengths)

    @classmethod
    def from_series(cls, series: pl.Series) -> Ragged:
        """int32, from a Polars column of lists; null is an empty list."""
        lengths = series.list.len().fill_null(0).to_numpy().astype(np.int64)
        return cls(series.filter(pl.Series(lengths > 0)).list.explode().to_numpy().astype(np.int32), lengths)

    def of(self, rows: np.ndarray) -> np.ndarray:
        """The values of some rows, one after another."""
        lengths = self.lengths[rows]
        before = np.cumsum(lengths) - lengths
        return self.values[np.arange(lengths.sum()) + np.repeat(self.starts[rows] - before, lengths)]

    def padded(self, rows: np.ndarray, length: int) -> np.ndarray:
        """[rows, length], int32 or as floating as the values, zeros on the right."""
        place = np.arange(length)
        real = place < self.lengths[rows][:, None]
        at = np.where(real, self.starts[rows][:, None] + place, 0)
        return np.where(real, self.values[at], 0).astype(
            self.values.dtype if self.values.dtype.kind == "f" else np.int32
        )

    def rows(self) -> list[np.ndarray]:
        """The rows, as views."""
        return np.split(self.values, np.cumsum(self.lengths)[:-1]) if len(self) else []

    def grouped(self, counts: np.ndarray) -> Ragged:
        """Joins consecutive rows: the next counts[i] rows (int64 [G], may be 0) become row i."""
        before = np.concatenate([[0], np.cumsum(self.lengths)])
        ends = np.cumsum(counts)
        return Ragged(self.values, before[ends] - before[ends - counts])


def repeated(values: np.ndarray | Sequence[float], count: int, dtype: type[np.generic] = np.int32) -> Ragged:
    """`count` rows that all hold `values`."""
    row = np.asarray(values, dtype)
    return Ragged(np.tile(row, count), np.full(count, len(row)))


def from_rows(rows: Sequence[np.ndarray]) -> Ragged:
    """Rows int32 [R][n_r]."""
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    return Ragged(np.concatenate(rows).astype(np.int32) if len(rows) else np.zeros(0, np.int32), lengths)


def join(parts: Sequence[Ragged]) -> Ragged:
    """Row r of the result is row r of every part, one after another."""
    lengths = np.sum([part.lengths for part in parts], axis=0, dtype=np.int64)
    values = np.empty(int(lengths.sum()), parts[0].values.dtype)
    at = np.cumsum(lengths) - lengths
    for part in parts:
        values[np.arange(len(part.values)) + np.repeat(at - part.starts, part.lengths)] = part.values
        at = at + part.lengths
    return Ragged(values, np.asarray(lengths))
