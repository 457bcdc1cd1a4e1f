"""Checkpoints: state and data iterator together, so that a resumed run equals an uninterrupted one bit for bit."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from plum_jax import artifact

PARAMS_KIND = "parameters"


class CheckpointMismatch(ValueError):
    """A checkpoint was made with another SidTable, vocabulary, data or model than the run that meets it."""


def require_same(found: Mapping[str, Any], expected: Mapping[str, Any], where: epath.PathLike) -> None:
    """Refuses a checkpoint whose fingerprints are not those of this run.

    Raises:
      CheckpointMismatch: names each fingerprint that differs.
    """
    different = [
        f"{name}: trained with {found.get(name)}, this run has {expected[name]}"
        for name in sorted(expected)
        if found.get(name) != expected[name]
    ]
    if different:
        raise CheckpointMismatch(
            f"the checkpoint in {where} was made with other inputs ({'; '.join(different)}): "
            "use the artefacts it was trained with, or another MODEL_DIR"
        )


class Checkpoints:
    """The checkpoints of one training run in `<directory>/checkpoints`; the last two are kept."""

    def __init__(self, directory: epath.PathLike, fingerprints: Mapping[str, str]):
        self._directory = epath.Path(directory) / "checkpoints"
        self._fingerprints = dict(fingerprints)
        self._manager = ocp.CheckpointManager(
            str(self._directory.resolve()),
            options=ocp.CheckpointManagerOptions(max_to_keep=2, create=True),
            item_names=("state", "feed", "fingerprints"),
        )

    def save(self, step: int, state: Any, feed_state: Any) -> None:
        """Starts saving (in the background) the train state and the iterator's state after `step` steps."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                feed=ocp.args.JsonSave({"state": _to_json(feed_state)}),
                fingerprints=ocp.args.JsonSave(self._fingerprints),
            ),
        )

    def restore_latest(self, state: Any) -> tuple[int, Any, Any] | None:
        """The newest checkpoint as `(step, state, feed_state)`, or None when there is none.

        Args:
          state: a state of the wanted structure, shapes, dtypes and shardings.

        Raises:
          CheckpointMismatch: it was made with other inputs.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        meta = self._manager.restore(step, args=ocp.args.Composite(fingerprints=ocp.args.JsonRestore()))
        require_same(meta["fingerprints"], self._fingerprints, self._directory)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        restored = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), feed=ocp.args.JsonRestore())
        )
        return step, restored["state"], _from_json(restored["feed"]["state"])

    def close(self) -> None:
        """Waits for saves under way."""
        self._manager.wait_until_finished()
        self._manager.close()


def save_params(
    directory: epath.PathLike, params: Any, *, fingerprints: Mapping[str, str], config: Any
) -> artifact.Manifest:
    """Leaves parameters as an artefact: what evaluation, warm starts and export read."""
    host = jax.device_get(params)

    def write(aside: epath.Path) -> None:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(str((aside / "params").resolve()), host)

    return artifact.write_artifact(
        directory,
        kind=PARAMS_KIND,
        fingerprint=artifact.tree_fingerprint(host),
        config=config,
        inputs=fingerprints,
        write=write,
    )


def load_params(directory: epath.PathLike, fingerprints: Mapping[str, str] | None = None) -> Any:
    """Parameters (host arrays) from `save_params`.

    Raises:
      artifact.ArtifactError: none there.
      CheckpointMismatch: `fingerprints` given and not those that the parameters were trained with.
    """
    manifest = artifact.read_manifest(directory, PARAMS_KIND)
    if fingerprints is not None:
        require_same(manifest.inputs, fingerprints, directory)
    path = str((epath.Path(directory) / "params").resolve())
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=sharding), metadata)
        return jax.device_get(checkpointer.restore(path, target))


def _to_json(state: Any) -> Any:
    if isinstance(state, bytes):
        return {"base64": base64.b64encode(state).decode()}
    return json.loads(json.dumps(state))


def _from_json(state: Any) -> Any:
    if isinstance(state, dict) and set(state) == {"base64"}:
        return base64.b64decode(state["base64"])
    return state
