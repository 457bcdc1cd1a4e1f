"""Evaluations on disk: a row and the users' ranks that belong together, or a clear error."""

import json

import polars as pl
import pytest
from etils import epath

from plum_jax import artifact
from plum_jax.evaluation import files

RANKS = pl.DataFrame(
    {"user_id": ["a", "b"], "target_item_id": ["x", "y"], "rank": [0, None], "rank_unseen": [0, 2]},
    schema_overrides={"rank": pl.Int32, "rank_unseen": pl.Int32},
)
ROW = {"name": "with_cpt", "recall@1": 0.5, "recall@5": 0.5}


def write(directory, name="with_cpt", row=ROW, ranks=RANKS):
    path = epath.Path(directory / f"{name}.json")
    files.write_evaluation(path, row, ranks, "some inputs")
    return path


def test_what_is_written_is_read(tmp_path):
    row, ranks = files.read_evaluation(write(tmp_path))
    assert row == ROW and ranks.equals(RANKS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["with_cpt.json", "with_cpt.per_user.parquet"]


def test_a_comparison_takes_the_cut_offs_that_both_have(tmp_path):
    first = write(tmp_path)
    second = write(
        tmp_path, "other", {"recall@5": 0.0, "recall@10": 0.0}, RANKS.with_columns(rank=pl.lit(None, pl.Int32))
    )
    rows = {row["metric"]: row for row in files.compare_files(first, second)}
    assert set(rows) == {f"{m}@5{s}" for m in ("recall", "ndcg", "mrr") for s in ("", "_unseen")}
    assert rows["recall@5"]["difference"] == 0.5 and rows["recall@5_unseen"]["difference"] == 0
    with pytest.raises(ValueError, match=r"expected ks of \[5\], which both evaluations have, got \(1, 5\)"):
        files.compare_files(first, second, (1, 5))


def test_missing_and_damaged_files_are_named(tmp_path):
    path = write(tmp_path)
    ranks = files.per_user_path(path)
    whole = ranks.read_bytes()
    ranks.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(artifact.ArtifactError, match="with_cpt.json or its ranks cannot be read"):
        files.read_evaluation(path)
    RANKS.reverse().write_parquet(str(ranks))
    with pytest.raises(artifact.ArtifactError, match="does not hold the ranks that"):
        files.read_evaluation(path)
    ranks.unlink()
    with pytest.raises(artifact.ArtifactError, match="there is no .*with_cpt.per_user.parquet"):
        files.read_evaluation(path)
    write(tmp_path)
    path.write_text(json.dumps({"row": ROW})[:-3])
    with pytest.raises(artifact.ArtifactError, match="cannot be read"):
        files.read_evaluation(path)
