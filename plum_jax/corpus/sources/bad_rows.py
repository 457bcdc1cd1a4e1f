"""What happens to a row that cannot be used: one error that names it, or a count of all such rows."""

from __future__ import annotations

import dataclasses
from typing import Literal

import polars as pl

from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources.files import ROW, DataFile

OnBadRow = Literal["error", "skip"]


@dataclasses.dataclass
class BadRows:
    """Drops bad rows and counts them by kind (`policy` "skip"), or raises at the first (`policy` "error")."""

    policy: OnBadRow
    problems: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.policy not in ("error", "skip"):
            raise CorpusError(f"on_bad_row must be 'error' or 'skip', got {self.policy!r}")

    def drop(
        self, frame: pl.DataFrame, bad: pl.Expr, *, kind: str, file: DataFile, field: str | None, problem: str
    ) -> pl.DataFrame:
        """`frame` (with a column `ROW`) without the rows where `bad` holds.

        Args:
          kind: what such rows are counted as, e.g. "bad time".
          field: the column to blame, in the file's words.
          problem: what was expected and what to do; "{value}" stands for what the file has there.

        Raises:
          CorpusError: under policy "error", if any row is bad.
        """
        mask = frame.select(bad.fill_null(False)).to_series()
        count = int(mask.sum())
        if not count:
            return frame
        if self.policy == "error":
            row = frame.filter(mask)[ROW].min()
            assert isinstance(row, int)
            value = "" if field is None else repr(file.value(row, field))
            part, row = file.place(row)
            many = f" ({count} rows like it)" if count > 1 else ""
            skip = "; or set on_bad_row='skip' to leave such rows out and count them"
            raise CorpusError(f"{kind}{many}: {problem.format(value=value)}{skip}", file=part, row=row, field=field)
        self.problems[kind] = self.problems.get(kind, 0) + count
        return frame.filter(~mask)

    def drop_broken(self, frame: pl.DataFrame, file: DataFile) -> pl.DataFrame:
        """Drops the rows that `DataFile.select` marked as broken, and the mark."""
        for fault in file.faults:
            frame = self.drop(
                frame, pl.col("__fault") == fault.code, kind=fault.kind, file=file, field=None, problem=fault.problem
            )
        return frame.drop("__fault")

    def report(self, name: str) -> dict[str, int]:
        """Prints the counts, and returns them."""
        for kind, count in sorted(self.problems.items()):
            print(f"{name}: left out {count:,} rows: {kind}")
        return dict(sorted(self.problems.items()))
