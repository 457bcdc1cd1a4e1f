"""Trunks: what runs of one size have in common is trained once, in stretches; each run branches off for its decay.

A stretch is a training run of its own in STUDY_DIR/trunks/<name>/<step>, from the end of the stretch before to a step
at which a cell branches off; its last checkpoint is where that cell, and the next stretch, begin.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from etils import epath

from plum_jax import artifact
from plum_jax.evaluation.scalable import Scalable
from plum_jax.studies.places import Cell
from plum_jax.studies.study import Study
from plum_jax.training import processes

# Directory and step of a run that others branch off.
Branch = tuple[epath.Path, int]
Train = Callable[[Scalable, epath.Path, Branch | None], Any]


def grown_trunk(study: Study, cell: Cell, study_dir: epath.PathLike, train: Train) -> Branch | None:
    """Where the cell branches off, its trunk trained up to there; None for a cell without a trunk.

    Of several cells that want the same stretch one trains it and the others wait; where one was killed, the next goes
    on from its newest checkpoint. Needs a file system with locks where workers share a study.

    Args:
      study, cell, study_dir: of which.
      train: trains a system in a directory, from a branch of a trunk or from nothing.
    """
    trunk: Branch | None = None
    for step, directory in zip(cell.branches, stretches(cell, study_dir), strict=True):
        # Of several processes of one run the first alone waits for the lock, and the others for the first.
        with artifact.alone(directory) if processes.is_first() else contextlib.nullcontext():
            if not (directory / "params" / artifact.MANIFEST).exists():
                train(study.trunk_of(cell, step), directory, trunk)
        trunk = (directory, step)
    return trunk


def stretches(cell: Cell, study_dir: epath.PathLike) -> list[epath.Path]:
    """The directories of the trunk's stretches up to where the cell branches off."""
    return [epath.Path(study_dir) / "trunks" / cell.trunk_name / f"{step:08d}" for step in cell.branches]
