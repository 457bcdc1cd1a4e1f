"""Values of a table of runs that cannot be one: an error that names the row, or a row that is counted, not fitted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

import polars as pl

from plum_jax.scaling.run_fields import FINISHED, FLAGS, MAY_BE_ZERO, POSITIVE, TEXTS, RunsError
from plum_jax.scaling.run_units import numbers

OnBadRow = Literal["error", "skip"]


@dataclasses.dataclass(frozen=True)
class BadRuns:
    """Raises at the first bad row (`policy` "error"), or gives such rows a status of their own (`policy` "skip").

    A row that is skipped stays in the table: its bad value becomes null, its status says "skipped: bad loss" and its
    reason what was expected, so it is counted like a run that failed.

    Attributes:
      policy: which.
      mapping: field -> column of the file, for messages.
      source: file, for messages.
    """

    policy: OnBadRow
    mapping: Mapping[str, str]
    source: str

    def __post_init__(self) -> None:
        if self.policy not in get_args(OnBadRow):
            raise RunsError(f"on_bad_row must be 'error' or 'skip', got {self.policy!r}")

    def typed(self, table: pl.DataFrame) -> pl.DataFrame:
        """Columns as what their fields are: texts, flags, numbers; a value that is none is bad."""
        for field in self.mapping:
            if field in TEXTS:
                table = table.with_columns(pl.col(field).cast(pl.String))
                continue
            read = table[field]
            cast = read.cast(pl.Boolean, strict=False) if field in FLAGS else numbers(read)
            kind = "true or false" if field in FLAGS else "a number"
            unreadable = read.is_not_null() & cast.is_null()
            table = self._without(table.with_columns(cast.alias(field)), unreadable, field, kind, read)
        return table

    def checked(self, table: pl.DataFrame) -> pl.DataFrame:
        """Every number can be one; rows of runs that did not finish may have any loss."""
        for field in self.mapping:
            value = pl.col(field)
            if field in POSITIVE or field.startswith("N_"):
                table = self._refused(table, ~((value > 0) & value.is_finite()), field, "a positive number")
            elif field in MAY_BE_ZERO:
                table = self._refused(
                    table, ~((value >= 0) & value.is_finite()), field, "a number that is not negative"
                )
        if "recall" in self.mapping:
            table = self._refused(table, pl.col("recall") > 1, "recall", "a rate of at most 1")
        if "hits" in self.mapping and "users" in self.mapping:
            table = self._refused(table, pl.col("hits") > pl.col("users"), "hits", "no more hits than users")
        return table

    def _refused(self, table: pl.DataFrame, rule: pl.Expr, field: str, expected: str) -> pl.DataFrame:
        if "status" in table.columns:
            rule = rule & (pl.col("status").fill_null(FINISHED) == FINISHED)
        bad = table.select(rule.fill_null(False)).to_series()
        return self._without(table, bad, field, expected, table[field])

    def _without(self, table: pl.DataFrame, bad: pl.Series, field: str, expected: str, read: pl.Series) -> pl.DataFrame:
        """The table with bad rows marked; `read` has the values as the file has them."""
        if not bad.any():
            return table
        column = self.mapping[field]
        if self.policy == "error":
            row, value = table["row"].filter(bad)[0], read.filter(bad)[0]
            shown = f"{value:g}" if isinstance(value, float) else repr(value)
            many = f" ({bad.sum()} rows like it)" if bad.sum() > 1 else ""
            raise RunsError(
                f"{self.source}, row {row}: expected {expected} in column {column!r} ({field}), got {shown}{many}: "
                "mend or leave out the row, give it a status other than 'finished', or set on_bad_row='skip' to leave "
                "such rows out of the fits and count them"
            )
        marks = {
            "status": pl.lit(f"skipped: bad {field}"),
            "reason": pl.lit(f"expected {expected} in column {column!r}, got ") + read.cast(pl.String).alias(field),
            field: pl.lit(None, table[field].dtype),
        }
        for name, mark in marks.items():
            otherwise = pl.col(name) if name in table.columns else pl.lit(None, pl.String)
            table = table.with_columns(pl.when(bad).then(mark).otherwise(otherwise).alias(name))
        return table
