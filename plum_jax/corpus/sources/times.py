"""Cells of files as times: numbers in any unit, timestamps of any precision, ISO 8601, dates by a format."""

from __future__ import annotations

import polars as pl

from plum_jax.corpus.sources.values import number, text

NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
SECOND = NANOSECONDS["s"]
_LATEST = 7_258_118_400  # seconds, the year 2200: what lies beyond it is a time in another unit
_ISO = r"^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2})?(?:[.,](\d{1,9}))?)?\s*(Z|z|[+-]\d{2}(?::?\d{2})?)?$"
ADVICE = (
    "expected a time from 1970 to 2200 in the unit asked for or as ISO 8601 (2020-11-26T18:33:38.123Z), all of one "
    "form, got {value}; for milliseconds set time_unit='ms', for other dates time_format, e.g. '%d/%m/%Y %H:%M:%S'"
)


def nanoseconds(column: pl.Expr, dtype: pl.DataType, unit: str, time_format: str | None) -> pl.Expr:
    """Int64 nanoseconds since 1970, as precise as they came; null where there is no time or a wrong one.

    Wrong are times before 1970 or after 2200, and cells of another form than the column's first: numbers, ISO 8601 with
    an offset, ISO 8601 without one (which is taken for UTC). 03/04/2020 could be two days, so it wants a `time_format`.

    Args:
      column: cells of the file.
      dtype: of the file's column.
      unit: of numbers.
      time_format: strptime format of text that is not ISO 8601.
    """
    if isinstance(dtype, pl.Datetime):
        return _scaled(column.cast(pl.Int64), dtype.time_unit)
    if isinstance(dtype, pl.Date):
        return _scaled(column.cast(pl.Int64) * 86_400, "s")
    if time_format is not None:
        return _scaled(text(column).str.strptime(pl.Datetime("us"), time_format, strict=False).dt.epoch("us"), "us")
    if dtype.is_integer():
        return _scaled(column.cast(pl.Int64), unit)
    if dtype.is_numeric():
        return _scaled(number(column, dtype), unit)
    return _of_text(text(column), unit)


def seconds(column: pl.Expr, dtype: pl.DataType, unit: str, time_format: str | None) -> pl.Expr:
    """Int64 whole seconds of `nanoseconds`."""
    return nanoseconds(column, dtype, unit, time_format) // SECOND


def _of_text(raw: pl.Expr, unit: str) -> pl.Expr:
    # Whole numbers are not read as floats: nanoseconds have more digits than those.
    whole, real = (raw.cast(dtype, strict=False) for dtype in (pl.Int64, pl.Float64))
    numeric = pl.coalesce(_scaled(whole, unit), _scaled(real, unit))
    offset = raw.str.extract(_ISO, 5)
    form = (
        pl.when(real.is_not_null())
        .then(0)
        .when(raw.str.contains(_ISO) & offset.is_not_null())
        .then(1)
        .when(raw.str.contains(_ISO))
        .then(2)
    )
    value = pl.when(form == 0).then(numeric).otherwise(_iso(raw, offset))
    return pl.when(form == form.drop_nulls().first()).then(value)


def _iso(raw: pl.Expr, offset: pl.Expr) -> pl.Expr:
    """Nanoseconds of ISO 8601; null where it is none, or no day of the calendar."""
    clock = raw.str.extract(_ISO, 2).fill_null("00:00") + raw.str.extract(_ISO, 3).fill_null(":00")
    moment = (raw.str.extract(_ISO, 1) + "T" + clock).str.strptime(pl.Datetime("us"), "%Y-%m-%dT%H:%M:%S", strict=False)
    fraction = raw.str.extract(_ISO, 4).str.pad_end(9, "0").cast(pl.Int64).fill_null(0)
    digits = offset.str.replace_all(r"\D", "").str.pad_end(4, "0")
    minutes = (digits.str.slice(0, 2).cast(pl.Int64, strict=False) * 60) + digits.str.slice(2, 2).cast(
        pl.Int64, strict=False
    )
    east = pl.when(offset.str.starts_with("-")).then(-minutes).otherwise(minutes).fill_null(0)
    return _scaled(moment.dt.epoch("s") - 60 * east, "s") + fraction


def _scaled(value: pl.Expr, unit: str) -> pl.Expr:
    """Nanoseconds of a number of `unit`; null where that is no time of our age (before it would overflow)."""
    scale = NANOSECONDS[unit]
    inside = value.is_between(0, _LATEST * (SECOND // scale))
    return (pl.when(inside).then(value) * scale).cast(pl.Int64)
