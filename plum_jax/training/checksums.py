"""Size and CRC-32 of every file of a directory, so that one that was cut or changed on disk is not taken for whole."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator

from etils import epath

from plum_jax import artifact

FILE = "checksums.json"
_CHUNK = 1 << 22


def write_checksums(directory: epath.Path, leave_out: tuple[str, ...] = ()) -> None:
    """Writes `checksums.json` over all files now there, but those of these names directly in `directory`."""
    sums = {
        os.fspath(path.relative_to(directory)): [path.stat().length, _crc32(path)]
        for path in _files(directory)
        if path.parent != directory or path.name not in (FILE, *leave_out)
    }
    artifact.write_json(directory / FILE, sums)


def find_damage(directory: epath.Path) -> str | None:
    """What is wrong with the first file that is not as it was written; None: nothing is. Reads all of it."""
    path = directory / FILE
    if not path.exists():
        return f"{FILE} is missing: it was not written to its end"
    try:
        sums = json.loads(path.read_text())
        expected = {str(name): (int(size), int(crc)) for name, (size, crc) in sums.items()}
    except (ValueError, TypeError, AttributeError):
        return f"{FILE} cannot be read"
    for name, (size, crc) in sorted(expected.items()):
        file = directory / name
        if not file.exists():
            return f"{name} is missing"
        if file.stat().length != size:
            return f"{name} has {file.stat().length} bytes, {size} were written"
        if _crc32(file) != crc:
            return f"{name} is not what was written (CRC-32)"
    return None


def _files(directory: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(directory.iterdir()):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _crc32(path: epath.Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc
