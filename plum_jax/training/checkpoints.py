"""Checkpoints: state and data iterator together, so that a resumed run equals an uninterrupted one bit for bit."""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from plum_jax import guard
from plum_jax.training import checksums, processes

WRITTEN_AFTER_CHECKSUMS = ("_CHECKPOINT_METADATA", "commit_success.txt")  # by Orbax: times, for nobody's use here


class CheckpointMismatch(guard.RunError):
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


class CheckpointsDamaged(ValueError):
    """There are checkpoints, and none is as it was written."""


class CheckpointNotSaved(OSError):
    """A checkpoint could not be written, e.g. because the disk is full."""


class Checkpoints:
    """The checkpoints of one training run in `<directory>/checkpoints`; the last two are kept.

    Orbax writes a checkpoint in the background into a directory aside and renames it; just before, sizes and checksums
    of all files are put in. When a run goes on, the first process reads them all again: a newest checkpoint that is not
    as it was written is named in a warning, moved to `<directory>/refused_checkpoints`, and the one before is used.

    Raises:
      CheckpointsDamaged: there are some, and none is whole.
    """

    def __init__(self, directory: epath.PathLike, fingerprints: Mapping[str, str]):
        self._directory = epath.Path(directory) / "checkpoints"
        self._fingerprints = dict(fingerprints)
        self._saving: int | None = None
        self._refuse_damaged()
        self._manager = ocp.CheckpointManager(
            str(self._directory.resolve()),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2,
                create=True,
                cleanup_tmp_directories=True,
                # Orbax calls it when all is written, and before the rename.
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
            ),
            item_names=("state", "progress", "fingerprints"),
        )

    def save(self, step: int, state: Any, progress: Mapping[str, Any]) -> None:
        """Starts saving (in the background) the train state and the loop's own after `step` steps.

        Args:
          step: finished steps.
          state: device arrays.
          progress: JSON values (`feed` may be bytes, too), the same on every process.

        Raises:
          CheckpointNotSaved: this one, or the one before.
        """
        with self._failures_named():
            self._manager.wait_until_finished()
            self._saving = step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    progress=ocp.args.JsonSave({**progress, "feed": _to_json(progress["feed"])}),
                    fingerprints=ocp.args.JsonSave(self._fingerprints),
                ),
            )

    def restore_latest(self, state: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """The newest checkpoint as `(step, state, progress)`, or None when there is none.

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
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore())
        )
        progress = restored["progress"]
        return step, restored["state"], {**progress, "feed": _from_json(progress["feed"])}

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint that is written or being written."""
        return self._manager.latest_step()

    def require_saved(self) -> None:
        """Looks, without waiting, whether the save under way has failed.

        Raises:
          CheckpointNotSaved: it has.
        """
        with self._failures_named():
            self._manager.check_for_errors()

    def wait(self) -> None:
        """Returns when the save under way is complete.

        Raises:
          CheckpointNotSaved: it failed.
        """
        with self._failures_named():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Ends the background work, whose failures have been seen by `wait` and `require_saved`."""
        try:
            self._manager.close()
        except Exception:
            logging.getLogger(__name__).debug("closing after a failed save", exc_info=True)

    @contextlib.contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            whole = [path.name for path in _step_directories(self._directory) if int(path.name) != self._saving]
            reason = str(error).strip().partition("\n")[0]
            if os.strerror(errno.ENOSPC) in str(error):
                reason = os.strerror(errno.ENOSPC)  # without TensorStore's many paths
            raise CheckpointNotSaved(
                f"the checkpoint of step {self._saving} could not be written to {self._directory} ({reason}): "
                + (f"those of steps {', '.join(whole)} are whole" if whole else "there is none before it")
                + "; make room, and the same command goes on from the last one"
            ) from error

    def _write_checksums(self) -> None:
        # Aside: "<step>.orbax-checkpoint-tmp..."; on gs://, where directories are not renamed, "<step>" itself.
        for name in (f"{self._saving}.orbax-checkpoint-tmp*", str(self._saving)):
            for directory in self._directory.glob(name):
                checksums.write_checksums(directory, leave_out=WRITTEN_AFTER_CHECKSUMS)
                return
        raise FileNotFoundError(f"no directory of step {self._saving} in {self._directory}")

    def _refuse_damaged(self) -> None:
        message = processes.from_first(self._move_damaged_aside() if processes.is_first() else None)
        if message is not None:
            raise CheckpointsDamaged(message)

    def _move_damaged_aside(self) -> str | None:
        """Leaves a whole checkpoint as the newest; the message of the error where there are only damaged ones."""
        damaged = {}
        for directory in _step_directories(self._directory):
            damage = checksums.find_damage(directory)
            if damage is None:
                break
            damaged[directory] = damage
        else:
            if damaged:
                found = "; ".join(f"{directory.name}: {damage}" for directory, damage in damaged.items())
                return (
                    f"none of the checkpoints in {self._directory} is as it was written ({found}): put back a copy, "
                    "or delete that directory to train from the start"
                )
        for directory, damage in damaged.items():
            refused = self._directory.parent / "refused_checkpoints" / directory.name
            warnings.warn(
                f"the checkpoint {directory} is refused: {damage}. The one before is used; it is kept in {refused}",
                stacklevel=2,
            )
            refused.parent.mkdir(parents=True, exist_ok=True)
            if refused.exists():
                refused.rmtree()
            directory.rename(refused)
        return None


def _step_directories(directory: epath.Path) -> list[epath.Path]:
    """The newest first."""
    if not directory.exists():
        return []
    return sorted((path for path in directory.iterdir() if path.name.isdigit()), key=lambda path: -int(path.name))


def _to_json(state: Any) -> Any:
    if isinstance(state, bytes):
        return {"base64": base64.b64encode(state).decode()}
    return json.loads(json.dumps(state))


def _from_json(state: Any) -> Any:
    if isinstance(state, dict) and set(state) == {"base64"}:
        return base64.b64decode(state["base64"])
    return state
