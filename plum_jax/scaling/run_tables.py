"""Tables of runs are read: any file, by a mapping of its columns, checked row by row."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

import polars as pl
from etils import epath

from plum_jax.scaling.run_fields import FIELDS, FINISHED, FLOPS_PER_ND, OURS, RunsError
from plum_jax.scaling.run_units import Column, factor_of, unlikely_units
from plum_jax.scaling.run_values import BadRuns, OnBadRow
from plum_jax.scaling.runs import Runs

Columns = Mapping[str, Column]


def read_runs(
    path: epath.PathLike,
    columns: Columns | None = None,
    flops_per_nd: float = FLOPS_PER_ND,
    on_bad_row: OnBadRow = "error",
) -> Runs:
    """Runs of a CSV, JSONL or Parquet file.

    Args:
      path: ends in .csv, .jsonl or .parquet.
      columns: field of `FIELDS` -> the file's column, or (column, unit) where its numbers are in another unit: a word
        ("millions") or a factor (1e6). None for a study of ours. N, D, C: at least two.
      flops_per_nd: gives the third of N, D and C.
      on_bad_row: "error" refuses a table with a value that cannot be one; "skip" fits the other rows and counts these.

    Raises:
      RunsError: no such file or ending, an unknown field or unit, a missing column, or a value that cannot be one; with
        row.
    """
    path = epath.Path(path)
    if not path.exists():
        raise RunsError(f"there is no table of runs at {path}")
    if path.suffix == ".csv":
        frame = pl.read_csv(path.read_bytes(), infer_schema_length=None)
    elif path.suffix == ".parquet":
        frame = pl.read_parquet(path.read_bytes())
    elif path.suffix in (".jsonl", ".ndjson"):
        frame = _read_json_lines(path)
    else:
        raise RunsError(f"expected a table of runs that ends in .csv, .jsonl or .parquet, got {path}")
    return make_runs(frame, columns, flops_per_nd, source=str(path), on_bad_row=on_bad_row)


def make_runs(
    frame: pl.DataFrame,
    columns: Columns | None = None,
    flops_per_nd: float = FLOPS_PER_ND,
    source: str = "table",
    on_bad_row: OnBadRow = "error",
) -> Runs:
    """Runs of a frame; arguments and errors as `read_runs` has them."""
    mapping, factors = _mapping(frame, columns, source)
    table = frame.select(pl.col(column).alias(field) for field, column in mapping.items())
    table = table.with_row_index("row", offset=1).with_columns(pl.col("row").cast(pl.Int64))
    bad = BadRuns(on_bad_row, mapping, source)
    table = bad.checked(bad.typed(table))
    table = table.with_columns(pl.col(field) * factor for field, factor in factors.items())
    of_parameters = mapping.get("N", f"C / ({flops_per_nd:g} D)")
    of_flops = mapping.get("C", f"{flops_per_nd:g} N D")
    table = _completed(table, flops_per_nd)
    return Runs(table, flops_per_nd, source, of_parameters, of_flops, notes=unlikely_units(table, mapping))


def _read_json_lines(path: epath.Path) -> pl.DataFrame:
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise RunsError(f"{path}, line {number} is not JSON ({error})") from None
    return pl.DataFrame(rows, infer_schema_length=None, strict=False)


def _mapping(frame: pl.DataFrame, columns: Columns | None, source: str) -> tuple[dict[str, str], dict[str, float]]:
    """Field -> column, each of them there, and field -> factor of those in another unit."""
    if columns is None:
        mapping = {field: column for field, column in OURS.items() if column in frame.columns}
        if "name" not in frame.columns or len({"N", "D", "C"} & mapping.keys()) < 2:
            raise RunsError(
                f"{source} is not the results.jsonl of a study (it has {', '.join(frame.columns)}): say which columns "
                "to read, e.g. {'N': 'params', 'D': 'tokens', 'loss': 'final_loss'}"
            )
        return mapping, {}
    mapping, factors = {}, {}
    for field, asked in columns.items():
        if field not in FIELDS:
            near = difflib.get_close_matches(field, FIELDS, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"fields are {', '.join(FIELDS)}"
            raise RunsError(f"the mapping of columns has the unknown field {field!r}: {hint}")
        column = asked if isinstance(asked, str) else str(asked[0]) if len(asked) else ""
        if column not in frame.columns:
            near = difflib.get_close_matches(column, frame.columns, n=2)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise RunsError(f"{source} has no column {column!r} for {field}: {hint}It has {', '.join(frame.columns)}")
        mapping[field] = column
        if not isinstance(asked, str):
            factors[field] = factor_of(field, asked)
    if len({"N", "D", "C"} & columns.keys()) < 2:
        raise RunsError(f"expected columns for at least two of N, D and C, got only {', '.join(columns) or 'nothing'}")
    return mapping, factors


def _completed(table: pl.DataFrame, flops_per_nd: float) -> pl.DataFrame:
    """The third of N, D and C, the rate from its counts, and what the fits rely on: run, status, held_out, excluded."""
    third = {
        "N": pl.col("C") / pl.col("D") / flops_per_nd if "N" not in table.columns else None,
        "D": pl.col("C") / pl.col("N") / flops_per_nd if "D" not in table.columns else None,
        "C": flops_per_nd * pl.col("N") * pl.col("D") if "C" not in table.columns else None,
    }
    table = table.with_columns(expression.alias(name) for name, expression in third.items() if expression is not None)
    if "recall" not in table.columns and {"hits", "users"} <= set(table.columns):
        table = table.with_columns((pl.col("hits") / pl.col("users")).alias("recall"))
    defaults: dict[str, Any] = {
        "run": pl.format("row {}", "row"),
        "status": pl.lit(FINISHED),
        "held_out": pl.lit(False),
    }
    table = table.with_columns(value.alias(name) for name, value in defaults.items() if name not in table.columns)
    # Not told to be held out, not told to have failed.
    table = table.with_columns(pl.col("held_out").fill_null(False), pl.col("status").fill_null(FINISHED))
    return table.with_columns(pl.lit(None, pl.String).alias("excluded"))
