"""Whether a text file's quotes are those of RFC 4180: told before a reader stumbles over them."""

from __future__ import annotations

import csv
import io
import re

from etils import epath

from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources.compressed import open_bytes

_NO_LIMIT = 1 << 30


def quote_of(utf8: epath.Path, path: epath.Path, separator: str, quote: str | None) -> str | None:
    """The quote to read the file with: `quote`, or None where fields are parted by tabs and quotes are just letters.

    Raises:
      CorpusError: a field of a file with other separators opens a quote that does not close as it must.
    """
    if quote is None or len(separator) > 1 or not _has_odd_line(utf8, separator, quote):
        return quote
    row = _first_broken_row(utf8, separator, quote)
    if row is None:
        return quote  # quoted fields that hold line breaks
    if separator == "\t":
        return None
    raise CorpusError(
        f"broken quoting: a field opens with {quote} and does not close before the next {separator!r}; where quotes "
        "are just letters set quote = None, else double the quotes inside quoted fields",
        file=path,
        row=row,
    )


def _has_odd_line(utf8: epath.Path, separator: str, quote: str) -> bool:
    """Whether a line, taken alone, is not of well-formed fields: broken, or a quoted field goes on in the next line."""
    s, q = re.escape(separator), re.escape(quote)
    field = f"(?:{q}(?:[^{q}]|{q}{q})*{q}|(?!{q})[^{s}]*)"
    whole = re.compile(f"{field}(?:{s}{field})*".encode())
    mark = quote.encode()
    with open_bytes(utf8) as file:
        return any(mark in line and not whole.fullmatch(line.rstrip(b"\r\n")) for line in file)


def _first_broken_row(utf8: epath.Path, separator: str, quote: str) -> int | None:
    """Line (from 1) where the first record begins that is not well-formed; None where all are."""
    before = csv.field_size_limit(_NO_LIMIT)
    try:
        with io.TextIOWrapper(open_bytes(utf8), encoding="utf-8", newline="") as text:
            reader = csv.reader(text, delimiter=separator, quotechar=quote, strict=True)
            last = 0
            try:
                for _ in reader:
                    last = reader.line_num
            except csv.Error:
                return last + 1
            return None
    finally:
        csv.field_size_limit(before)
