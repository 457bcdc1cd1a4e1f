"""What a path stands for: one file, a directory of parts, or a pattern; Hive partitions of the folders between."""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
import re
from collections.abc import Iterable
from urllib.parse import unquote

from etils import epath

from plum_jax.corpus.schema import CorpusError

_HIDDEN = ("_", ".")
_HIVE = re.compile(r"([^=/]+)=(.*)")


def parts_of(name: str | os.PathLike[str]) -> list[epath.Path]:
    """The files of a path, in the order of their names: itself, all below it, or those that match the pattern.

    Files and folders whose names begin with "_" or "." (`_SUCCESS`, checksums) are no parts.

    Raises:
      CorpusError: there is none; names a near one.
    """
    path = epath.Path(name).expanduser()
    if path.is_dir():
        found = _below(path)
    elif path.exists():
        return [path]
    elif glob.has_magic(str(path)):
        found = [part for match in _matches(path) for part in (_below(match) if match.is_dir() else [match])]
    else:
        near = difflib.get_close_matches(path.name, _names(path.parent), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "give the path of a file, a directory or a pattern"
        raise CorpusError(f"there is no such file; {hint}", file=path)
    if not found:
        raise CorpusError("there is no file of data below it, or none matches", file=path)
    return found


def file_hashes(paths: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """Path of each file, and of each part of a directory or pattern -> hash (16 hex characters) of its content."""
    hashes = {}
    for part in (part for path in paths for part in parts_of(path)):
        with part.open("rb") as file:
            hashes[str(part)] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return hashes


def table_name(path: epath.Path) -> str:
    """What a corpus is called after its path: the file's or folder's name without ending, of a pattern its folder's."""
    while glob.has_magic(path.name):
        path = path.parent
    return path.stem


def partitions_of(part: epath.Path) -> dict[str, str]:
    """Columns that the folders of a part stand for: {"day": "2024-01-31"} of events/day=2024-01-31/0.parquet."""
    matches = (_HIVE.fullmatch(folder) for folder in part.parts[:-1])
    return {match[1]: unquote(match[2]) for match in matches if match}


def _below(directory: epath.Path) -> list[epath.Path]:
    found: list[epath.Path] = []
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if entry.name.startswith(_HIDDEN):
            continue
        found += _below(entry) if entry.is_dir() else [entry]
    return found


def _matches(pattern: epath.Path) -> list[epath.Path]:
    """Paths that match, sorted; the pattern's part before its first `*` is a directory."""
    if "://" not in str(pattern):
        local = (epath.Path(match) for match in sorted(glob.glob(str(pattern), recursive=True)))
        return [match for match in local if not match.name.startswith(_HIDDEN)]
    fixed = 0  # of an object store one level after the other is listed
    while not glob.has_magic(pattern.parts[fixed]):
        fixed += 1
    base = epath.Path(*pattern.parts[:fixed]) if fixed else epath.Path(".")
    if not base.is_dir():
        return []
    found = base.glob("/".join(pattern.parts[fixed:]))
    return sorted((match for match in found if not match.name.startswith(_HIDDEN)), key=str)


def _names(directory: epath.Path) -> list[str]:
    return [entry.name for entry in directory.iterdir()] if directory.is_dir() else []
