"""Tensors of safetensors files, one at a time: a directory is read and written without a second copy of the model."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from plum_jax.interop import InteropError

_ONE_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def open_tensors(directory: epath.PathLike) -> dict[str, Callable[[], np.ndarray]]:
    """Name -> what reads that tensor, of `model.safetensors` or of the shards in `model.safetensors.index.json`.

    Raises:
      InteropError: no such file, a shard that is missing or cut off, or an index that does not fit its shards.
    """
    directory = epath.Path(directory)
    index = directory / _INDEX
    if index.exists():
        file_of: dict[str, str] = json.loads(index.read_text())["weight_map"]
    elif (directory / _ONE_FILE).exists():
        file_of = dict.fromkeys(_open(directory / _ONE_FILE).keys(), _ONE_FILE)
    else:
        raise InteropError(f"expected {_ONE_FILE} or {_INDEX} in {directory}: only safetensors weights are read")
    files = {name: _open(directory / name) for name in sorted(set(file_of.values()))}
    held = {tensor for file in files.values() for tensor in file.keys()}  # noqa: SIM118 (not a mapping)
    if held != set(file_of):
        raise InteropError(f"{index} and its shards differ in {', '.join(sorted(held ^ set(file_of))[:8])}")
    return {name: functools.partial(files[file].get_tensor, name) for name, file in file_of.items()}


def _open(path: epath.Path) -> Any:
    if not path.exists():
        raise InteropError(f"{_INDEX} names {path.name}, which is not in {path.parent}: fetch all shards")
    try:
        return safetensors.safe_open(str(path), "numpy")
    except safetensors.SafetensorError as error:
        raise InteropError(f"{path} is not a complete safetensors file: {error}") from None


def write_tensors(
    directory: epath.PathLike,
    tensors: Mapping[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]],
    dtype: np.dtype,
    shard_bytes: int,
) -> None:
    """Writes tensors as one file, or as shards with an index; at most one shard is in memory.

    Args:
      directory: exists.
      tensors: name -> shape and what makes the array.
      dtype: of all tensors in the file.
      shard_bytes: limit of a file; a larger tensor has a file of its own.
    """
    sizes = {name: math.prod(shape) * dtype.itemsize for name, (shape, _) in tensors.items()}
    shards: list[list[str]] = [[]]
    for name, size in sizes.items():
        if shards[-1] and size + sum(sizes[other] for other in shards[-1]) > shard_bytes:
            shards.append([])
        shards[-1].append(name)
    file_of: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = _ONE_FILE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        arrays = {name: np.ascontiguousarray(tensors[name][1](), dtype) for name in names}
        safetensors.numpy.save_file(arrays, str(epath.Path(directory) / file), metadata={"format": "pt"})
        file_of |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": file_of}
        (epath.Path(directory) / _INDEX).write_text(json.dumps(index, indent=2) + "\n")
