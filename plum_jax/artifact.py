"""Artefacts: directories that a pipeline stage leaves behind, complete or not at all.

Every artefact holds a `manifest.json` that says what it is, what made it and from what. Stages meet only through
artefacts, and a stage whose artefact is already there, made by the same config from the same inputs, is skipped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from plum_jax import guard

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
# Metadata of a dataclass field that says how a run is watched, not what it makes: no fingerprint or manifest has it.
NOT_DESCRIBED = {"described": False}


class ArtifactError(ValueError):
    """An artefact is missing, half-written, of another kind, or not the one that a reader expected."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What an artefact says of itself.

    Attributes:
      kind: what it is, e.g. "corpus" or "sid_table".
      fingerprint: hash of the artefact's own content (hex).
      inputs: name of an input artefact -> its fingerprint.
      config: what made it (JSON values).
      schema_version: layout version of the directory.
    """

    kind: str
    fingerprint: str
    inputs: dict[str, str]
    config: dict[str, Any]
    schema_version: int = SCHEMA_VERSION


def fingerprint(*parts: Any) -> str:
    """Hash (16 hex characters) of arrays, strings, bytes and JSON-able values; equal content has equal hashes."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            array = np.ascontiguousarray(part)
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.view(np.uint8).data if array.size else b"")
        elif isinstance(part, bytes):
            digest.update(part)
        else:
            digest.update(json.dumps(describe(part), sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def tree_fingerprint(tree: Any) -> str:
    """Hash of parameters: nested dictionaries of arrays, by path and content. Device arrays are read to the host."""
    parts: list[Any] = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, Mapping):
            for name in sorted(node):
                walk(node[name], f"{path}/{name}")
        else:
            parts.extend((path, np.asarray(node)))

    walk(tree, "")
    return fingerprint(*parts)


def describe(value: Any) -> Any:
    """JSON form of a config value: dataclasses become {"type": name, fields...}, paths become strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        described = (f for f in dataclasses.fields(value) if f.metadata.get("described", True))
        fields = {f.name: describe(getattr(value, f.name)) for f in described}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [describe(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if callable(value):
        return getattr(value, "__qualname__", repr(value))
    return str(value)


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes a value as JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True))


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes text in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Writes aside and renames, so that a reader sees the old file or the new one, never a half.

    Several processes may write one file at the same time; the last one's content stays.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.{secrets.token_hex(4)}.aside"
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: epath.PathLike) -> Iterator[None]:
    """Keeps other processes that also ask from a local file while this one reads and replaces it."""
    if "://" in os.fspath(path):
        yield
        return
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_artifact(
    directory: epath.PathLike,
    *,
    kind: str,
    fingerprint: str,
    config: Any,
    inputs: Mapping[str, str],
    write: Callable[[epath.Path], None],
) -> Manifest:
    """Runs `write(aside)` in a directory aside, adds the manifest last, and renames it to `directory`.

    A process killed at any point leaves the previous artefact, the new one or, between two renames, none; never a half.
    """
    directory = epath.Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = directory.parent / f".{directory.name}.aside"
    retired = directory.parent / f".{directory.name}.retired"
    for leftover in (aside, retired):
        if leftover.exists():
            leftover.rmtree()
    aside.mkdir()
    write(aside)
    manifest = Manifest(kind=kind, fingerprint=fingerprint, inputs=dict(inputs), config=describe(config))
    write_json(aside / MANIFEST, dataclasses.asdict(manifest))
    # Removing takes time: the previous artefact goes out of the way first, whole.
    if directory.exists():
        directory.rename(retired)
    aside.rename(directory)
    if retired.exists():
        retired.rmtree()
    return manifest


def read_manifest(directory: epath.PathLike, kind: str) -> Manifest:
    """The manifest of a complete artefact of this kind.

    Raises:
      ArtifactError: no complete artefact there, another kind, or another schema version.
    """
    path = epath.Path(directory) / MANIFEST
    if not path.exists():
        raise ArtifactError(
            f"expected a {kind} artefact at {directory}, but there is no {MANIFEST}: run the stage that makes it"
        )
    try:
        manifest = Manifest(**json.loads(path.read_text()))
    except (json.JSONDecodeError, TypeError) as error:
        raise ArtifactError(f"{path} is not a manifest ({error}): delete {directory} and run the stage again") from None
    if manifest.kind != kind:
        raise ArtifactError(f"expected a {kind} artefact at {directory}, but it is a {manifest.kind}")
    if manifest.schema_version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{directory} has schema version {manifest.schema_version}, this code reads {SCHEMA_VERSION}: make it again"
        )
    return manifest


def is_current(directory: epath.PathLike, *, kind: str, config: Any, inputs: Mapping[str, str]) -> bool:
    """Whether a complete artefact of this kind, made by this config from these inputs, is already there.

    Raises:
      RunError: it is not, and the job must not make it (`guard.before_making`).
    """
    wanted = {"config": json.loads(json.dumps(describe(config))), "inputs": dict(inputs)}
    try:
        manifest = read_manifest(directory, kind)
    except ArtifactError:
        guard.before_making(directory, None, wanted)
        return False
    found = {"config": manifest.config, "inputs": manifest.inputs}
    if found == wanted:
        return True
    guard.before_making(directory, found, wanted)
    return False
