"""Units of a table of runs: numbers in millions or billions, "110M" as text, and sizes that no unit makes likely."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence

import polars as pl

from plum_jax.scaling.run_fields import FINISHED, NUMBERS, RunsError

SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
UNITS = {"thousands": 1e3, "millions": 1e6, "billions": 1e9, "trillions": 1e12}
# No decoder has fewer parameters and none is trained on fewer tokens: a table that says so speaks of millions.
LEAST = {"N": (1000.0, "parameters"), "D": (1000.0, "tokens")}
# C / (N D) is about 6; embeddings, attention and experts move it by a factor of ten, a wrong unit by a thousand.
FLOPS_PER_ND_RANGE = (1e-2, 1e3)

# A column's name, or (name, unit): a word of `UNITS` or a factor.
Column = str | Sequence[str | float]


def factor_of(field: str, column: Sequence[str | float]) -> float:
    """What the numbers of (column, unit) are multiplied by.

    Raises:
      RunsError: no pair, a field that is no number, or a unit that is neither a word of `UNITS` nor a positive factor.
    """
    if len(column) != 2:
        raise RunsError(f"expected a column or (column, unit) for {field}, e.g. ('params', 'millions'), got {column!r}")
    name, unit = column
    if field not in NUMBERS:
        raise RunsError(f"{field} is no number and has no unit: give the column alone, {name!r}")
    if isinstance(unit, str):
        if unit not in UNITS:
            near = difflib.get_close_matches(unit, UNITS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}? " if near else ""
            raise RunsError(f"{field} has the unknown unit {unit!r}: {hint}It is {', '.join(UNITS)} or a factor, 1e6")
        return UNITS[unit]
    if isinstance(unit, bool) or not isinstance(unit, int | float) or not 0 < unit < math.inf:
        raise RunsError(f"{field}: expected a unit ({', '.join(UNITS)}) or a positive factor, got {unit!r}")
    return float(unit)


def numbers(column: pl.Series) -> pl.Series:
    """Floats, null for what is none; text may say "110M" for 110 million."""
    plain = column.cast(pl.Float64, strict=False)
    if column.dtype != pl.String:
        return plain
    frame = pl.DataFrame({"text": column})
    number = frame["text"].str.extract(r"^\s*([0-9.]+)\s*([KMBT])\s*$").cast(pl.Float64, strict=False)
    suffix = frame["text"].str.extract(r"^\s*([0-9.]+)\s*([KMBT])\s*$", 2).replace_strict(SUFFIXES, default=None)
    return pl.select(pl.coalesce(plain, number * suffix)).to_series()


def unlikely_units(table: pl.DataFrame, mapping: Mapping[str, str]) -> tuple[str, ...]:
    """A line for each of N, D and C that can hardly be, with what to set; () where all may be.

    Args:
      table: of runs, with N, D and C.
      mapping: field -> column of the file; a field that follows from the others is not blamed.
    """
    finished = table.filter(pl.col("status") == FINISHED).drop_nulls(["N", "D", "C"])
    if finished.is_empty():
        return ()
    units = {"N": "millions", "D": "billions"}
    found = []
    for field, (least, what) in LEAST.items():
        smallest = float(finished.select(pl.col(field).min()).item())
        if field in mapping and smallest < least:
            column = mapping[field]
            found.append(
                f"column {column!r} has a run of {smallest:g} {what} ({field}), which can hardly be: if it is in "
                f"{units[field]}, set '{field}': ({column!r}, {units[field]!r}) in COLUMNS"
            )
    ratio = float(finished.select((pl.col("C") / pl.col("N") / pl.col("D")).median()).item())
    low, high = FLOPS_PER_ND_RANGE
    if not found and {"N", "D", "C"} <= mapping.keys() and not low <= ratio <= high:
        column = mapping["C"]
        found.append(
            f"column {column!r} has {ratio:.2g} N D of FLOPs (C), where about 6 N D are usual: if one of N, D and C is "
            f"in another unit, give it in COLUMNS, e.g. 'C': ({column!r}, 1e15)"
        )
    return tuple(found)
