"""Where the files of a study lie, and how a cell's row is written and read."""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from plum_jax import artifact

RECORD = "record.json"


def shared_directory(study_dir: epath.PathLike) -> epath.Path:
    """Corpus, features, SIDs, vocabulary, token records and prompts of all cells."""
    return epath.Path(study_dir) / "shared"


def cell_directory(study_dir: epath.PathLike, cell_id: str) -> str:
    """The directory of one cell's run; as text, for gin binds it to MODEL_DIR."""
    return str(epath.Path(study_dir) / "cells" / cell_id)


def record_path(study_dir: epath.PathLike, cell_id: str) -> epath.Path:
    """A cell's row. Where it exists the cell is done, whatever its status."""
    return epath.Path(cell_directory(study_dir, cell_id)) / RECORD


def write_record(study_dir: epath.PathLike, row: dict[str, Any]) -> None:
    """Writes the row of the cell `row["name"]`, whole or not at all."""
    artifact.write_json(record_path(study_dir, row["name"]), row)


def read_record(study_dir: epath.PathLike, cell_id: str) -> dict[str, Any] | None:
    """A cell's row; None while there is none."""
    path = record_path(study_dir, cell_id)
    return json.loads(path.read_text()) if path.exists() else None
