"""When the loss is not finite: the exact step, its batch and what is known of the state, saved for a look."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.training import processes

HOW_TO_LOOK = (
    "batch = dict(numpy.load('{batch}')) is what the step was given (of several processes each saved its own rows). "
    "The run goes on from the checkpoint of step {checkpoint} with the same command, and meets the same batch again; "
    "'recent' is what happened since the last row. A gradient that grows over steps asks for a lower learning rate or "
    "clipping; one that jumps at a step, for a look at the batch. A run that ends with the same fingerprint of "
    "parameters has reproduced it."
)


def first_not_finite(sums: Sequence[Mapping[str, Any]]) -> int | None:
    """Index of the first step whose loss or gradient norm is not finite; `sums` are host values (sum, weight)."""
    for number, metrics in enumerate(sums):
        if not all(math.isfinite(metrics[name][0]) for name in ("loss", "gradient_norm") if name in metrics):
            return number
    return None


def save(
    directory: epath.Path,
    *,
    step: int,
    batch: Mapping[str, np.ndarray],
    recent: Mapping[int, Mapping[str, Any]],
    params: Any,
    state_step: int,
    checkpoint: int | None,
) -> epath.Path:
    """Writes `bad_batch/batch.npz` (`batch_of_process_<i>.npz` of several) and `bad_batch/step.json`.

    Args:
      directory: the run's.
      step: the step that went wrong.
      batch: what it was given, the rows of this process.
      recent: step -> metrics (sum, weight) of the steps since the last row.
      params: parameters after `state_step` steps, for the names of those that are not finite.
      state_step: last step that was computed before the error was noticed.
      checkpoint: step of the newest checkpoint.
    """
    folder = directory / "bad_batch"
    folder.mkdir(parents=True, exist_ok=True)
    name = "batch.npz" if jax.process_count() == 1 else f"batch_of_process_{jax.process_index()}.npz"
    aside = folder / f".{name}.aside"
    with aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **batch)
    aside.replace(folder / name)
    host = processes.to_host(params)
    if not processes.is_first():
        return folder
    flat, _ = jax.tree_util.tree_flatten_with_path(host)
    artifact.write_json(
        folder / "step.json",
        {
            "step": step,
            "recent": {
                str(number): {name: str(pair[0] / max(pair[1], 1e-8)) for name, pair in metrics.items()}
                for number, metrics in recent.items()
            },
            "last_checkpoint": checkpoint,
            "state_after_step": state_step,
            "parameters_fingerprint": artifact.tree_fingerprint(host),
            "parameters_not_finite": [
                jax.tree_util.keystr(path)
                for path, leaf in flat
                if not np.all(np.isfinite(np.asarray(leaf, np.float32)))
            ],
            "how_to_look": HOW_TO_LOOK.format(batch=folder / name, checkpoint=0 if checkpoint is None else checkpoint),
        },
    )
    return folder
