"""Fields of JSON lines as text: a line is parsed once, however many fields are wanted of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import polars as pl


def json_fields(lines: pl.LazyFrame, line: str, columns: Mapping[str, str], nested: Collection[str]) -> pl.LazyFrame:
    """The frame with fields of its column of lines under new names ({new: old}), as text; null where there is none.

    Text is what it is, a number its shortest decimal form (1.0 is "1"), a list or an object its JSON. All fields of a
    line that is no JSON object are null.

    Args:
      lines: has the column `line`.
      line: name of that column.
      columns: new name -> key.
      nested: keys whose values are lists or objects, which Polars does not decode as text: these are looked up one by
        one. A value of that kind in another field is found, too, and costs a second look at its line.
    """
    scalar = {new: old for new, old in columns.items() if old not in nested}
    looked_up = {new: _looked_up(line, old) for new, old in columns.items() if old in nested}
    if not scalar:
        return lines.with_columns(**looked_up)
    keys = list(dict.fromkeys(scalar.values()))
    fields = pl.Struct(dict.fromkeys(keys, pl.String()))
    decoded = pl.col(line).map_batches(lambda some: _decoded(some, fields), return_dtype=fields, is_elementwise=True)
    parsed = lines.with_columns(__parsed=decoded)
    values = {new: pl.col("__parsed").struct.field(old) for new, old in scalar.items()}
    return parsed.with_columns(**values, **looked_up).drop("__parsed")


def _decoded(lines: pl.Series, fields: pl.Struct) -> pl.Series:
    """Structs of the lines. One that Polars does not decode fails all it stands with: halves find it."""
    try:
        return lines.str.json_decode(fields)
    except pl.exceptions.ComputeError:
        if len(lines) > 1:
            half = len(lines) // 2
            return _decoded(lines[:half], fields).append(_decoded(lines[half:], fields))
    one = lines.to_frame("line").select(_looked_up("line", field.name).alias(field.name) for field in fields.fields)
    return one.select(pl.struct(pl.all())).to_series().cast(fields)


def _looked_up(line: str, key: str) -> pl.Expr:
    path = f"$['{key}']" if "'" not in key else f'$["{key}"]'
    return pl.col(line).str.json_path_match(path)
