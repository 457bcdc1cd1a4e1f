"""Parameters on disk: the artefact that evaluation, warm starts and export read, and trees that Orbax wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from plum_jax import artifact
from plum_jax.training import processes
from plum_jax.training.checkpoints import require_same

PARAMS_KIND = "parameters"


def save_params(
    directory: epath.PathLike, params: Any, *, fingerprints: Mapping[str, str], config: Any
) -> artifact.Manifest:
    """Leaves parameters as an artefact: what evaluation, warm starts and export read.

    Of several processes all call it, and the first alone writes; it is there when the call returns.
    """
    host = processes.to_host(params)

    def write(aside: epath.Path) -> None:
        with _checkpointer() as checkpointer:
            checkpointer.save(str((aside / "params").resolve()), host)

    if processes.is_first():
        artifact.write_artifact(
            directory,
            kind=PARAMS_KIND,
            fingerprint=artifact.tree_fingerprint(host),
            config=config,
            inputs=fingerprints,
            write=write,
        )
    else:
        _count_a_save()
    processes.wait_for_all(f"parameters in {directory}")
    return artifact.read_manifest(directory, PARAMS_KIND)


def load_params(directory: epath.PathLike, fingerprints: Mapping[str, str] | None = None) -> Any:
    """Parameters (host arrays) from `save_params`.

    Raises:
      artifact.ArtifactError: none there.
      CheckpointMismatch: `fingerprints` given and not those that the parameters were trained with.
    """
    manifest = artifact.read_manifest(directory, PARAMS_KIND)
    if fingerprints is not None:
        require_same(manifest.inputs, fingerprints, directory)
    return read_arrays(epath.Path(directory) / "params")


def read_arrays(directory: epath.PathLike) -> Any:
    """A tree of arrays that Orbax wrote, in this program or another, as host arrays."""
    path = str(epath.Path(directory).resolve())
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), read_shapes(directory))
    with _checkpointer() as checkpointer:
        return jax.device_get(checkpointer.restore(path, target))


def read_shapes(directory: epath.PathLike) -> Any:
    """Shapes and types of such a tree, a tree of `jax.ShapeDtypeStruct`: its metadata alone are read."""
    with _checkpointer() as checkpointer:
        metadata = checkpointer.metadata(str(epath.Path(directory).resolve())).item_metadata
    return jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), metadata)


def _checkpointer() -> ocp.StandardCheckpointer:
    """One that works in this process alone: Orbax's own waits for all processes of the run."""
    me = jax.process_index()
    return ocp.StandardCheckpointer(
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
        )
    )


def _count_a_save() -> None:
    """Where another process saves alone: Orbax numbers saves in each process, and waits for directories by number.

    A process that is a number behind does not wait for those of its next checkpoint: what it writes before they are
    made is removed, and the run stands still.
    """
    with _checkpointer() as checkpointer:
        checkpointer.synchronize_next_awaitable_signal_operation_id()
