"""Bytes of files that may be compressed: told by the name, and an error that says what it is where they are damaged."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import pyarrow as pa
from etils import epath

from plum_jax.corpus.schema import CorpusError

SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_DAMAGES = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, pa.ArrowException, OSError)


def open_bytes(path: epath.Path) -> BinaryIO:
    """The file's bytes, decompressed if its name ends in .gz, .bz2, .xz or .zst."""
    raw = cast(BinaryIO, path.open("rb"))
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if path.suffix == ".bz2":
        return cast(BinaryIO, bz2.BZ2File(raw))
    if path.suffix == ".xz":
        return cast(BinaryIO, lzma.LZMAFile(raw))
    if path.suffix == ".zst":
        return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw), "zstd")))
    return raw


def inner_suffix(path: epath.Path) -> str:
    """ ".csv" of log.csv and of log.csv.zst."""
    return epath.Path(path.stem).suffix if path.suffix in SUFFIXES else path.suffix


def check_name(path: epath.Path) -> None:
    """Refuses a file that is compressed and does not say so by its name.

    Raises:
      CorpusError: names the ending that it should have.
    """
    if path.suffix in SUFFIXES:
        return
    with path.open("rb") as file:
        first = file.read(6)
    for magic, suffix in _MAGIC.items():
        if first.startswith(magic):
            raise CorpusError(
                f"the file is compressed, and its name does not say so: name it {path.name}{suffix}", file=path
            )


@contextlib.contextmanager
def damage_named(path: epath.Path) -> Iterator[None]:
    """What goes wrong while compressed bytes are read, as one error.

    Raises:
      CorpusError: the file ends too early, or is not what its name says.
    """
    try:
        yield
    except CorpusError:
        raise
    except _DAMAGES as error:
        if path.suffix not in SUFFIXES:
            raise
        raise CorpusError(
            f"the file cannot be decompressed as {path.suffix} ({str(error).strip() or 'it ends too early'}): it was "
            "cut short, is damaged, or is not what its name says; fetch it again",
            file=path,
        ) from None
