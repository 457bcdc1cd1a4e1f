"""Cells of files as values: text, numbers, times and lists, by expressions that leave a mark where a cell is bad."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

_JSON_LIST = r'^\[\s*(?:["\]\-0-9]|null|true|false)'


def or_null(column: pl.Expr) -> pl.Expr:
    """A String column with null for "". (`Expr.replace` does the same, but Polars would read the whole file for it.)"""
    return pl.when(column != "").then(column)


def text(column: pl.Expr) -> pl.Expr:
    """String without white space around it; null where nothing is left."""
    return or_null(column.cast(pl.String).str.strip_chars())


def number(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Float64; null where there is none, NaN where the cell is not a finite number."""
    if dtype.is_numeric():
        value = column.cast(pl.Float64).fill_nan(None)
        return pl.when(value.is_infinite()).then(float("nan")).otherwise(value)
    raw = text(column)
    value = raw.cast(pl.Float64, strict=False)
    return pl.when(raw.is_null()).then(None).when(value.is_finite()).then(value).otherwise(float("nan"))


def elements(column: pl.Expr, dtype: pl.DataType, separator: str) -> pl.Expr:
    """A list cell, a JSON list or text with separators as a list; empty elements stay, so that lists stay aligned."""
    if isinstance(dtype, pl.List):
        return column
    raw = text(column)
    is_json = raw.str.contains(_JSON_LIST)
    decoded = pl.when(is_json).then(raw).str.json_decode(pl.List(pl.String))
    return pl.when(is_json).then(decoded).otherwise(raw.str.split(separator))


def texts(column: pl.Expr, dtype: pl.DataType, separator: str) -> pl.Expr:
    """List(String) of a list cell without white space around elements and without empty ones; null where none is."""
    lists = elements(column, dtype, separator).cast(pl.List(pl.String))
    lists = lists.list.eval(text(pl.element())).list.drop_nulls()
    return pl.when(lists.list.len() > 0).then(lists)


def integral(frame: pl.DataFrame, columns: Iterable[str]) -> pl.DataFrame:
    """`frame` with those of `columns` that hold whole numbers only as Int64, so that they print as 25 and not 25.0."""
    whole = [name for name in columns if bool((frame[name].fill_null(0) % 1 == 0).all())]
    return frame.with_columns(pl.col(whole).cast(pl.Int64))
