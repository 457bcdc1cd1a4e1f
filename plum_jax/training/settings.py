"""Settings that a training run was begun with, in words, so that a run with others is refused by their names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from plum_jax import artifact, guard
from plum_jax.training import processes
from plum_jax.training.checkpoints import CheckpointMismatch

FILE = "settings.json"


def require_same(directory: epath.PathLike, settings: Mapping[str, Any]) -> None:
    """Writes the settings of a run that begins; refuses those that a run already there was not begun with.

    Where the user has said so (`guard.remakes`), the run that is there is moved aside and kept.

    Raises:
      CheckpointMismatch: names the settings that differ, with both values.
    """
    directory, wanted = epath.Path(directory), json.loads(json.dumps(artifact.describe(settings)))
    path = directory / FILE
    if path.exists():
        different = guard.differences(json.loads(path.read_text()), wanted)
        if different and not guard.remakes():
            told = guard.said([(f"config.{name}", there, here) for name, there, here in different])
            raise CheckpointMismatch(
                f"{directory} was trained with other settings: {told}. Take the settings that it has, take another "
                "MODEL_DIR, or add --remake to train anew (what is there is kept aside)"
            )
    if guard.remakes() and directory.exists() and processes.is_first():
        _move_aside(directory)
    if processes.is_first():
        artifact.write_json(path, wanted)


def _move_aside(directory: epath.Path) -> None:
    number = 1
    while (kept := directory.parent / f"{directory.name}.before-{number}").exists():
        number += 1
    directory.rename(kept)
    print(f"{directory} is trained anew; what was there is kept as {kept.name}")
