"""Files of the user's, whatever their format, as lazy Polars frames whose rows know their number in the file."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import difflib
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import polars as pl

from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources import encodings, values

ROW = "__row"
LINE = "__line"
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
    """One file of the user's.

    Attributes:
      path: as the user named it.
      format: how it is read.
      lazy: `ROW` and the columns (JSON: `ROW` and the line). All columns of text files are String.
      schema: the file's columns and their types.
      faults: the ways in which its rows can be broken.
    """

    path: pathlib.Path
    format: Format
    lazy: pl.LazyFrame
    schema: Mapping[str, pl.DataType]
    faults: tuple[Fault, ...]

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
            frame = self.lazy.filter(pl.col(LINE).str.strip_chars() != "").select(
                ROW, LINE, **{new: pl.col(LINE).str.json_path_match(_json_path(old)) for new, old in columns.items()}
            )
            nothing = pl.all_horizontal(pl.col(new).is_null() for new in columns)
            tests = {_ENCODING: pl.col(LINE).str.contains("\ufffd", literal=True), _JSON: nothing}
        else:
            frame = self.lazy
            if self.format == "delimited":
                frame = frame.filter(~pl.all_horizontal(pl.col(*self.schema).is_null()))
            replaced = pl.any_horizontal(
                pl.col(name).str.contains("\ufffd", literal=True)
                for name, dtype in self.schema.items()
                if dtype == pl.String
            )
            tests = {_ENCODING: replaced}
            if _FIELDS in self.faults:
                tests[_FIELDS] = pl.col(_SURPLUS).is_not_null()
        fault = pl.lit(0, pl.UInt8)
        for kind in self.faults:
            fault = pl.when(tests[kind].fill_null(False)).then(pl.lit(kind.code, pl.UInt8)).otherwise(fault)
        picked = {new: pl.col(new if self.format == "json" else old) for new, old in columns.items()}
        return frame.select(ROW, **picked, __fault=fault)

    def dtype(self, column: str) -> pl.DataType:
        return self.schema[column]

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
    """Opens Parquet, CSV, TSV, `::`-separated or JSON-lines (.gz too), told apart by the name.

    Args:
      path: the file.
      stack: keeps a UTF-8 copy of a file in another encoding for as long as the file is read.
      skip_wrong_encoding: mark rows in another encoding as broken instead of raising.
      separator: of the fields; None: by the name (.csv , .tsv tab .dat ::).
      columns: their names, for a text file without a header.
      encoding: of a text file.
      quote: the character that encloses fields with separators inside; None: none.
    """
    path = _existing(path)
    suffix = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    if suffix == ".parquet":
        lazy = pl.scan_parquet(path, glob=False, row_index_name=ROW, row_index_offset=1)
        schema = {name: dtype for name, dtype in lazy.collect_schema().items() if name != ROW}
        return DataFile(path, "parquet", lazy, schema, ())
    utf8, replaced = stack.enter_context(encodings.as_utf8(path, encoding, skip_wrong_encoding))
    faults = (_ENCODING,) if replaced else ()
    if suffix in _JSON_SUFFIXES:
        return DataFile(path, "json", _lines(utf8, offset=1), _json_keys(utf8, path), (*faults, _JSON))
    separator = separator or _SEPARATORS.get(suffix)
    if separator is None:
        raise CorpusError(f"the name does not tell the format; name the separator (known: {_SEPARATORS})", file=path)
    header = list(columns) or _header(utf8, path, separator, quote)
    lazy = _scan_delimited(utf8, header, separator, quote, skip=0 if columns else 1)
    return DataFile(path, "delimited", lazy, dict.fromkeys(header, pl.String()), (*faults, _FIELDS))


def open_lines(path: str | os.PathLike[str], stack: contextlib.ExitStack, *, skip_wrong_encoding: bool) -> DataFile:
    """Opens UTF-8 text (.gz too) as one column `LINE`, for those who take the lines apart themselves."""
    path = _existing(path)
    utf8, replaced = stack.enter_context(encodings.as_utf8(path, "utf-8", skip_wrong_encoding))
    lines = _lines(utf8, offset=1).with_columns(values.or_null(pl.col(LINE)).alias(LINE))
    return DataFile(path, "delimited", lines, {LINE: pl.String()}, (_ENCODING,) if replaced else ())


def file_hashes(paths: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """Path of each file -> hash (16 hex characters) of its content."""
    hashes = {}
    for path in map(_existing, paths):
        with open(path, "rb") as file:
            hashes[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return hashes


def _existing(path: str | os.PathLike[str]) -> pathlib.Path:
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1) if path.parent.is_dir() else []
        hint = f"did you mean {near[0]!r}?" if near else "give the path of a file that is there"
        raise CorpusError(f"there is no such file; {hint}", file=path)
    return path


def _header(utf8: pathlib.Path, path: pathlib.Path, separator: str, quote: str | None) -> list[str]:
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


def _lines(path: pathlib.Path, offset: int) -> pl.LazyFrame:
    lazy = pl.scan_lines(path, name=LINE, row_index_name=ROW, row_index_offset=offset, glob=False)
    return lazy.with_columns(pl.col(LINE).str.strip_chars_end("\r"))


def _scan_delimited(
    path: pathlib.Path, header: list[str], separator: str, quote: str | None, skip: int
) -> pl.LazyFrame:
    """All columns as String, and `_SURPLUS`: the first field beyond the header, null in good rows."""
    if len(separator) == 1:
        return pl.scan_csv(
            path,
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


def _json_keys(utf8: pathlib.Path, path: pathlib.Path) -> dict[str, pl.DataType]:
    keys: dict[str, pl.DataType] = {}
    with encodings.open_bytes(utf8) as file:
        for line in itertools.islice(file, _KEYS_SEEN_IN):
            with contextlib.suppress(json.JSONDecodeError):
                row = json.loads(line)
                keys |= dict.fromkeys(row, pl.String()) if isinstance(row, dict) else {}
    if not keys:
        raise CorpusError("no line is a JSON object; expected one object a line", file=path, row=1)
    return keys


def _json_path(key: str) -> str:
    return f"$['{key}']" if "'" not in key else f'$["{key}"]'
