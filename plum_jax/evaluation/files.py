"""Files of an evaluation: `<name>.json`, a row of figures, and `<name>.per_user.parquet`, where each target stands.

The ranks are what a later comparison needs: two systems over the same users, user by user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.evaluation.metrics import compare_per_user


def per_user_path(evaluation: epath.PathLike) -> epath.Path:
    """Where the ranks of `evaluation/<name>.json` lie."""
    path = epath.Path(evaluation)
    return path.parent / f"{path.stem}.per_user.parquet"


def write_evaluation(path: epath.Path, row: Mapping[str, Any], per_user: pl.DataFrame, fingerprint: str) -> None:
    """Writes both files.

    Args:
      path: of the JSON file.
      row: of `results.jsonl`.
      per_user: "user_id", "target_item_id" and ranks.
      fingerprint: of all that decides the evaluation.
    """
    write_frame(per_user_path(path), per_user)
    # The row last: where it is, the ranks are, and it says which.
    artifact.write_json(path, {"fingerprint": fingerprint, "row": row, "per_user": _fingerprint(per_user)})


def write_frame(path: epath.Path, frame: pl.DataFrame) -> None:
    """Writes a Parquet file aside and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.aside"
    with aside.open("wb") as file:
        frame.write_parquet(file)
    aside.replace(path)


def _fingerprint(frame: pl.DataFrame) -> str:
    return artifact.fingerprint(*("\n".join(map(str, frame[name].to_list())) for name in frame.columns))


def read_evaluation(path: epath.PathLike) -> tuple[dict[str, Any], pl.DataFrame]:
    """The row and the per-user ranks of an `evaluation/<name>.json`.

    Raises:
      ArtifactError: there is none, or its ranks are missing, damaged or another evaluation's.
    """
    path, ranks_path = epath.Path(path), per_user_path(path)
    for file in (path, ranks_path):
        if not file.exists():
            raise artifact.ArtifactError(f"there is no {file}: expected an evaluation, made by gin/run/pipeline.gin")
    try:
        stored = json.loads(path.read_text())
        with ranks_path.open("rb") as opened:
            frame = pl.read_parquet(opened)
    except (json.JSONDecodeError, pl.exceptions.PolarsError, OSError) as error:
        raise artifact.ArtifactError(f"{path} or its ranks cannot be read ({error}): delete both, run again") from None
    if stored.get("per_user") != _fingerprint(frame):
        raise artifact.ArtifactError(f"{ranks_path} does not hold the ranks that {path} was written with: run again")
    return stored["row"], frame


def compare_files(
    first: epath.PathLike, second: epath.PathLike, ks: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Every metric of two evaluations, user by user (`metrics.compare_per_user`).

    Args:
      first, second: paths of `evaluation/<name>.json`, of one run or of two over the same corpus and split.
      ks: cut-offs; None: all that both were evaluated at.

    Raises:
      ValueError: a cut-off that one of them has not.
    """
    (first_row, first_ranks), (second_row, second_ranks) = read_evaluation(first), read_evaluation(second)
    common = sorted(_cut_offs(first_row) & _cut_offs(second_row))
    ks = common if ks is None else ks
    if not ks or not set(ks) <= set(common):
        raise ValueError(f"expected ks of {common}, which both evaluations have, got {tuple(ks)}")
    return compare_per_user(first_ranks, second_ranks, ks)


def _cut_offs(row: Mapping[str, Any]) -> set[int]:
    return {int(match[1]) for key in row if (match := re.fullmatch(r"recall@(\d+)", key))}
