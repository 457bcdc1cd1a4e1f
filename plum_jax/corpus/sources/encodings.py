"""Text files in any encoding, as UTF-8: found out early, with the row of the first wrong byte."""

from __future__ import annotations

import codecs
import contextlib
import io
import tempfile
from collections.abc import Iterator
from typing import cast

from etils import epath

from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources.compressed import check_name, damage_named, open_bytes

_BLOCK = 1 << 24
_OTHER_COMPRESSION = (".bz2", ".xz", ".zst")


def first_line(path: epath.Path) -> str:
    """The first line of a UTF-8 file, without its end and without a byte order mark."""
    with open_bytes(path) as file:
        return file.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n")


@contextlib.contextmanager
def as_utf8(path: epath.Path, encoding: str, replace_wrong: bool) -> Iterator[tuple[epath.Path, bool]]:
    """A file with the same text in UTF-8 (the file itself where it is), and whether wrong bytes became U+FFFD.

    Raises:
      CorpusError: bytes that are not of `encoding` and `replace_wrong` is False, or a file that is UTF-8 although
        another encoding was named.
    """
    try:
        is_utf8 = codecs.lookup(encoding).name == "utf-8"
    except LookupError:
        raise CorpusError(f"no encoding is called {encoding!r}; try 'utf-8' or 'latin-1'", file=path) from None
    check_name(path)
    with damage_named(path):
        wrong = _first_row_not_in(encoding, path)
    if wrong and not replace_wrong:
        other = "latin-1" if is_utf8 else "utf-8"
        raise CorpusError(
            f"wrong encoding: byte {wrong[1]:#04x} is not {encoding}; is the file {other}? Set its encoding to "
            f"{other!r}, or set on_bad_row='skip' to leave such rows out and count them",
            file=path,
            row=wrong[0],
        )
    if not is_utf8 and not wrong and "a".encode(encoding) == b"a":
        not_ascii = _first_row_not_in("ascii", path)
        if not_ascii and not _first_row_not_in("utf-8", path):
            # Latin-1 accepts any bytes: UTF-8 read as latin-1 turns "é" into "Ã©" and nobody notices.
            raise CorpusError(
                f"wrong encoding: the file is UTF-8 throughout, and reading it as {encoding} would garble this row; "
                "set its encoding to 'utf-8'",
                file=path,
                row=not_ascii[0],
            )
        is_utf8 = not_ascii is None
    if is_utf8 and not wrong and path.suffix not in _OTHER_COMPRESSION and "://" not in str(path):
        yield path, False
        return
    # Polars reads local UTF-8, plain or as gzip. The copy is not compressed, whatever the file is.
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", suffix=".utf8") as copy:
        with io.TextIOWrapper(open_bytes(path), encoding=encoding, errors="replace", newline="") as text:
            while block := text.read(_BLOCK):
                copy.write(block)
        copy.flush()
        yield epath.Path(copy.name), wrong is not None


def _first_row_not_in(encoding: str, path: epath.Path) -> tuple[int, int] | None:
    """Row (1-based) and value of the first byte that is not of this encoding."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    lines = 0
    with open_bytes(path) as file:
        while True:
            block = file.read(_BLOCK)
            pending = cast(bytes, decoder.getstate()[0])
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                seen = pending + block
                return lines + seen.count(b"\n", 0, error.start) + 1, seen[error.start]
            if not block:
                return None
            lines += block.count(b"\n")
