"""Files of the user's, whatever their format, as lazy Polars frames whose rows know their number in the file."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import difflib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import polars as pl
from etils import epath

from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources import encodings, values
from plum_jax.corpus.sources.compressed import SUFFIXES, inner_suffix, open_bytes
from plum_jax.corpus.sources.json_fields import json_fields
from plum_jax.corpus.sources.parts import partitions_of, parts_of
from plum_jax.corpus.sources.quoting import quote_of

ROW = "__row"
LINE = "__line"
PART_ROWS = 1 << 40  # more than a part has
_SURPLUS = "__surplus"
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t", ".user": "\t", ".data": "\t", ".dat": "::"}
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_KEYS_SEEN_IN = 1000  # lines of a JSONL file that are looked at to know its keys

Format = Literal["delimited", "json", "parquet"]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A way in which a row can be broken as a whole."""

    code: int
    kind: str
    problem: str


_ENCODING = Fault(1, "wrong encoding", "the row holds bytes that are not of the encoding named for the file")
_FIELDS = Fault(2, "too many fields", "the row has more fields than the header; quote the field that holds a separator")
_JSON = Fault(3, "not JSON", "the row is not a JSON object with any of the fields asked for")


@dataclasses.dataclass(frozen=True)
class DataFile:
    """One table of the user's: a file, or parts that follow each other.

    Attributes:
      path: as the user named it.
      parts: the files, in order; `ROW` of a part is behind those of the part before by `PART_ROWS`.
      format: how it is read.
      lazy: `ROW` and the columns (JSON: `ROW` and the line). All columns of text files are String.
      schema: the file's columns and their types.
      faults: the ways in which its rows can be broken.
      nested: JSON: the columns that were seen to hold lists or objects.
    """

    path: epath.Path
    parts: tuple[epath.Path, ...]
    format: Format
    lazy: pl.LazyFrame
    schema: Mapping[str, pl.DataType]
    faults: tuple[Fault, ...]
    nested: frozenset[str] = frozenset()

    def require(self, columns: Sequence[str]) -> None:
        """Raises CorpusError for the first of `columns` that the file has not."""
        for column in columns:
            if column not in self.schema:
                near = difflib.get_close_matches(column, self.schema, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise CorpusError(
                    f"missing column: {hint}The file has {list(self.schema)}; map the field to one of them",
                    file=self.path,
                    row=1 if self.format == "delimited" else None,
                    field=column,
                )

    def select(self, columns: Mapping[str, str]) -> pl.LazyFrame:
        """`ROW`, the file's columns under new names ({new: old}), and "__fault" (0, or the code of a `Fault`).

        Blank lines are left out.
        """
        self.require(list(columns.values()))
        if self.format == "json":
            lines = self.lazy.filter(pl.col(LINE).str.strip_chars() != "").select(ROW, LINE)
            frame = json_fields(lines, LINE, columns, self.nested)
            nothing = pl.all_horizontal(pl.col(new).is_null() for new in columns)
            tests = {_ENCODING: pl.col(LINE).str.contains("\ufffd", literal=True), _JSON: nothing}
        else:
            frame = self.lazy
            if self.format == "delimited":
                frame = frame.filter(~pl.all_horizontal(pl.col(*self.schema).is_null()))
            strings = [name for name, dtype in self.schema.items() if dtype == pl.String]
            replaced = [pl.col(name).str.contains("\ufffd", literal=True) for name in strings]
            tests = {_ENCODING: pl.any_horizontal(pl.lit(False), *replaced)}  # a file may have no text at all
            if _FIELDS in self.faults:
                tests[_FIELDS] = pl.col(_SURPLUS).is_not_null()
        fault = pl.lit(0, pl.UInt8)
        for kind in self.faults:
            fault = pl.when(tests[kind].fill_null(False)).then(pl.lit(kind.code, pl.UInt8)).otherwise(fault)
        picked = {new: pl.col(new if self.format == "json" else old) for new, old in columns.items()}
        return frame.select(ROW, **picked, __fault=fault)

    def dtype(self, column: str) -> pl.DataType:
        return self.schema[column]

    def place(self, row: int) -> tuple[epath.Path, int]:
        """The file that a value of `ROW` is of, and the row in it, for messages."""
        part, row = divmod(row, PART_ROWS)
        return self.parts[part], row

    def value(self, row: int, column: str) -> Any:
        """What the file has there, for messages."""
        return self.select({"value": column}).filter(pl.col(ROW) == row).select("value").collect().item()


def open_file(
    path: str | os.PathLike[str],
    stack: contextlib.ExitStack,
    *,
    skip_wrong_encoding: bool,
    separator: str | None = None,
    columns: Sequence[str] = (),
    encoding: str = "utf-8",
    quote: str | None = '"',
) -> DataFile:
    """Opens Parquet, CSV, TSV, `::`-separated or JSON-lines (.gz, .bz2, .xz, .zst too), told apart by the name.

    Args:
      path: a file, a directory of parts, or a pattern (events/*.parquet); Hive partitions become columns of text.
      stack: keeps a UTF-8 copy of a file in another encoding for as long as the file is read.
      skip_wrong_encoding: mark rows in another encoding as broken instead of raising.
      separator: of the fields; None: by the name (.csv , .tsv tab .dat ::).
      columns: their names, for a text file without a header.
      encoding: of a text file.
      quote: the character that encloses fields with separators inside; None: none.
    """
    parts = parts_of(path)
    forms = {inner_suffix(part) for part in parts}
    if len(forms) > 1:
        raise CorpusError(
            f"expected parts of one format, got {sorted(forms)}; name a pattern, e.g. *.parquet", file=path
        )

    def opened(part: epath.Path) -> DataFile:
        return _open_part(part, stack, skip_wrong_encoding, separator, columns, encoding, quote)

    files = [opened(part) for part in parts]
    return files[0] if len(files) == 1 and not partitions_of(parts[0]) else _together(epath.Path(path), files)


def _open_part(
    path: epath.Path,
    stack: contextlib.ExitStack,
    skip_wrong_encoding: bool,
    separator: str | None,
    columns: Sequence[str],
    encoding: str,
    quote: str | None,
) -> DataFile:
    suffix = inner_suffix(path)
    if suffix == ".parquet":
        lazy = pl.scan_parquet(
            os.fspath(path), glob=False, hive_partitioning=False, row_index_name=ROW, row_index_offset=1
        )
        schema = {name: dtype for name, dtype in lazy.collect_schema().items() if name != ROW}
        return DataFile(path, (path,), "parquet", lazy, schema, ())
    utf8, replaced = stack.enter_context(encodings.as_utf8(path, encoding, skip_wrong_encoding))
    faults = (_ENCODING,) if replaced else ()
    if suffix in _JSON_SUFFIXES:
        schema, nested = _json_keys(utf8, path)
        return DataFile(path, (path,), "json", _lines(utf8, offset=1), schema, (*faults, _JSON), nested)
    separator = separator or _SEPARATORS.get(suffix)
    if separator is None:
        known = f"known: {_SEPARATORS}, {_JSON_SUFFIXES}, .parquet, each also with {SUFFIXES} behind"
        raise CorpusError(f"the name does not tell the format; name the separator ({known})", file=path)
    quote = quote_of(utf8, path, separator, quote)
    header = list(columns) or _header(utf8, path, separator, quote)
    lazy = _scan_delimited(utf8, header, separator, quote, skip=0 if columns else 1)
    return DataFile(path, (path,), "delimited", lazy, dict.fromkeys(header, pl.String()), (*faults, _FIELDS))


def _together(path: epath.Path, files: list[DataFile]) -> DataFile:
    """Parts as one table, with the columns that their folders stand for.

    Raises:
      CorpusError: a part that lacks a column that the first one has, or has it of another type.
    """
    first, lazies = files[0], []
    given = partitions_of(first.parts[0])
    for number, file in enumerate(files):
        for name, dtype in first.schema.items():
            if first.format != "json" and file.schema.get(name) != dtype:
                found = "none" if name not in file.schema else f"{file.schema[name]}"
                raise CorpusError(
                    f"expected a column of {dtype}, as {first.path.name} has it, got {found}; mend the part, or name a "
                    "pattern that leaves it out",
                    file=file.path,
                    field=name,
                )
        partitions = partitions_of(file.parts[0])
        if partitions.keys() != given.keys():
            raise CorpusError(
                f"expected folders {'/'.join(f'{name}=...' for name in given) or 'without ='}, as of "
                f"{first.path.name}; all parts of a table have the same",
                file=file.path,
            )
        kept = [LINE] if first.format == "json" else [*first.schema, *([_SURPLUS] if _FIELDS in first.faults else [])]
        folders = {name: pl.lit(value, pl.String) for name, value in partitions.items()}
        row = pl.col(ROW).cast(pl.Int64) + number * PART_ROWS
        lazies.append(file.lazy.select(row.alias(ROW), *kept, **folders))
    schema: dict[str, pl.DataType] = {}
    for file in files:
        schema |= file.schema
    faults = tuple({fault: None for file in files for fault in file.faults})
    parts = tuple(part for file in files for part in file.parts)
    schema |= dict.fromkeys(given, pl.String())
    nested = frozenset().union(*(file.nested for file in files))
    return DataFile(path, parts, first.format, pl.concat(lazies), schema, faults, nested)


def open_lines(path: str | os.PathLike[str], stack: contextlib.ExitStack, *, skip_wrong_encoding: bool) -> DataFile:
    """Opens UTF-8 text (.gz too) as one column `LINE`, for those who take the lines apart themselves."""
    (path,) = parts_of(path)
    utf8, replaced = stack.enter_context(encodings.as_utf8(path, "utf-8", skip_wrong_encoding))
    lines = _lines(utf8, offset=1).with_columns(values.or_null(pl.col(LINE)).alias(LINE))
    return DataFile(path, (path,), "delimited", lines, {LINE: pl.String()}, (_ENCODING,) if replaced else ())


def _header(utf8: epath.Path, path: epath.Path, separator: str, quote: str | None) -> list[str]:
    line = encodings.first_line(utf8)
    if not line:
        raise CorpusError("the file is empty, expected a header and rows", file=path, row=1)
    if len(separator) > 1:
        header = line.split(separator)
    else:
        no_quotes = {"quoting": csv.QUOTE_NONE} if quote is None else {"quotechar": quote}
        header = next(csv.reader([line], delimiter=separator, **no_quotes))
    header = [name.strip() for name in header]
    for position, name in enumerate(header):
        if not name or name in header[:position]:
            problem = f"the header names {name!r} twice" if name else f"column {position + 1} of the header has no name"
            raise CorpusError(f"{problem}; mend the header", file=path, row=1, field=name)
    return header


def _lines(path: epath.Path, offset: int) -> pl.LazyFrame:
    lazy = pl.scan_lines(os.fspath(path), name=LINE, row_index_name=ROW, row_index_offset=offset, glob=False)
    return lazy.with_columns(pl.col(LINE).str.strip_chars_end("\r"))


def _scan_delimited(path: epath.Path, header: list[str], separator: str, quote: str | None, skip: int) -> pl.LazyFrame:
    """All columns as String, and `_SURPLUS`: the first field beyond the header, null in good rows."""
    if len(separator) == 1:
        return pl.scan_csv(
            os.fspath(path),
            has_header=False,
            skip_rows=skip,
            schema=dict.fromkeys([*header, _SURPLUS], pl.String),
            separator=separator,
            quote_char=quote,
            missing_columns="insert",
            truncate_ragged_lines=True,
            row_index_name=ROW,
            row_index_offset=1 + skip,
            glob=False,
        )
    fields = pl.col("__fields").list
    cells = {name: values.or_null(fields.get(i, null_on_oob=True)) for i, name in enumerate([*header, _SURPLUS])}
    lines = _lines(path, offset=1).slice(skip)
    return lines.select(ROW, __fields=pl.col(LINE).str.split(separator)).select(ROW, **cells)


def _json_keys(utf8: epath.Path, path: epath.Path) -> tuple[dict[str, pl.DataType], frozenset[str]]:
    """The keys of the first lines, and those whose values are lists or objects."""
    keys: dict[str, pl.DataType] = {}
    nested: set[str] = set()
    with open_bytes(utf8) as file:
        for line in itertools.islice(file, _KEYS_SEEN_IN):
            with contextlib.suppress(json.JSONDecodeError):
                row = json.loads(line)
                if isinstance(row, dict):
                    keys |= dict.fromkeys(row, pl.String())
                    nested.update(key for key, value in row.items() if isinstance(value, list | dict))
    if not keys:
        raise CorpusError("no line is a JSON object; expected one object a line", file=path, row=1)
    return keys, frozenset(nested)
