"""Several processes of one run (`jax.distributed`): who writes, what all must agree on, arrays from all to the host."""

from __future__ import annotations

import json
import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def join() -> None:
    """Makes this process one of a run of several; to be called before anything else asks JAX for devices.

    On TPU pods, GKE, Slurm and Open MPI JAX finds the others by itself. Elsewhere three variables name them:
    JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID. On CPUs the processes talk
    by Gloo.

    Raises:
      ValueError: two of the variables without the third, or no number.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = [os.environ.get(name) for name in names]
    address, count, index = given
    if given[1:] != [None, None] and not (address and count and count.isdigit() and index and index.isdigit()):
        raise ValueError(f"expected {', '.join(names)} together, got {dict(zip(names, given, strict=True))}")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if count and index:
        jax.distributed.initialize(address, num_processes=int(count), process_id=int(index))
    else:
        jax.distributed.initialize()


def is_first() -> bool:
    """Whether this process writes what is written once."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def share() -> tuple[int, int]:
    """Which part of work that any number of processes can share is this one's, and of how many: (index, count).

    That of a run of several processes, else what PROCESS_INDEX and PROCESS_COUNT say (for workers that need not know of
    each other), else all of it.

    Raises:
      ValueError: one of the variables without the other, or numbers that do not fit.
    """
    if jax.distributed.is_initialized():
        return jax.process_index(), jax.process_count()
    index, count = os.environ.get("PROCESS_INDEX"), os.environ.get("PROCESS_COUNT")
    if index is None and count is None:
        return 0, 1
    if not (index and index.isdigit() and count and count.isdigit() and int(index) < int(count)):
        raise ValueError(f"expected PROCESS_INDEX from 0 to PROCESS_COUNT - 1, got {index!r} of {count!r}")
    return int(index), int(count)


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def gather(value: Any) -> list[Any]:
    """A JSON value from every process, in their order."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    longest = int(np.max(multihost_utils.process_allgather(np.int32(len(text)))))
    padded = np.full(longest, ord(" "), np.uint8)
    padded[: len(text)] = text
    return [json.loads(bytes(row)) for row in np.asarray(multihost_utils.process_allgather(padded))]


def from_first(value: Any) -> Any:
    """The first process's JSON value, on every process."""
    return gather(value)[0]


def to_host(tree: Any) -> Any:
    """Arrays as numpy arrays, whole on every process, wherever their pieces lie."""

    def fetch(leaf: Any) -> np.ndarray:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            return jax.device_get(leaf)
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(fetch, tree)
