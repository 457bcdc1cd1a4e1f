"""A trie on disk: an artefact of one `.npy` file for each array, mapped into memory when it is read."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.retrieval.trie import SidTrie, TrieLevel

KIND = "sid_trie"
_ARRAYS = ("root_index", "root_count", "labels", "digest")
_LEVEL_ARRAYS = ("codes", "first", "child_index", "child_count", "bitmap")
_LEVEL_SIZES = ("num_rows", "fan_out", "window")


def save(trie: SidTrie, directory: epath.PathLike, table_fingerprint: str = "") -> None:
    """Writes the trie, aside and then renamed.

    Args:
      trie: any.
      directory: is replaced.
      table_fingerprint: of the SidTable that it was made from.
    """
    arrays = dict(_arrays(trie))

    def write(aside: epath.Path) -> None:
        for name, array in arrays.items():
            with (aside / f"{name}.npy").open("wb") as file:
                np.save(file, array)

    config = {
        "codebook_sizes": list(trie.codebook_sizes),
        "num_prefixes": list(trie.num_prefixes),
        "levels": [{name: getattr(level, name) for name in _LEVEL_SIZES} for level in trie.levels],
        "hashes": _hashes(arrays),
    }
    inputs = {"sid_table": table_fingerprint} if table_fingerprint else {}
    artifact.write_artifact(
        directory, kind=KIND, fingerprint=trie.fingerprint, config=config, inputs=inputs, write=write
    )


def load(directory: epath.PathLike, *, check: bool = True) -> SidTrie:
    """Reads a trie.

    Args:
      directory: a local one is mapped into memory; JAX copies from there to its device.
      check: reads all of it once more for its hashes (20 million SIDs: about a second).

    Raises:
      ArtifactError: no trie there, a file is missing, cut off or was changed.
    """
    directory = epath.Path(directory)
    config = artifact.read_manifest(directory, KIND).config
    names = sorted(config["hashes"])
    arrays = {name: _read(directory / f"{name}.npy") for name in names}
    if check:
        found = _hashes(arrays)
        for name in names:
            if found[name] != config["hashes"][name]:
                raise artifact.ArtifactError(
                    f"{directory / name}.npy was changed since it was written (hash {found[name]}, expected "
                    f"{config['hashes'][name]}): delete {directory} and make the trie again"
                )
    return _assembled(config, {name: jnp.asarray(array) for name, array in arrays.items()})


def _assembled(config: dict[str, Any], arrays: dict[str, jax.Array]) -> SidTrie:
    levels = []
    for number, sizes in enumerate(config["levels"]):
        given: dict[str, Any] = {name: arrays[f"level{number}.{name}"] for name in _LEVEL_ARRAYS}
        levels.append(TrieLevel(**given, **sizes))
    return SidTrie(
        levels=tuple(levels),
        root_index=arrays["root_index"],
        root_count=arrays["root_count"],
        labels=arrays.get("labels"),
        digest=arrays["digest"],
        codebook_sizes=tuple(config["codebook_sizes"]),
        num_prefixes=tuple(config["num_prefixes"]),
    )


def _arrays(trie: SidTrie) -> Iterator[tuple[str, np.ndarray]]:
    for number, level in enumerate(trie.levels):
        for name in _LEVEL_ARRAYS:
            yield f"level{number}.{name}", np.asarray(getattr(level, name))
    for name in _ARRAYS:
        if getattr(trie, name) is not None:
            yield name, np.asarray(getattr(trie, name))


def _hashes(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """Of each array; hashing lets go of the interpreter's lock, so the levels are hashed side by side."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(arrays, pool.map(artifact.fingerprint, arrays.values()), strict=True))


def _read(path: epath.Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise artifact.ArtifactError(
            f"{path} cannot be read ({error}): delete {path.parent} and make the trie again"
        ) from None
