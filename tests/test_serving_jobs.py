"""What is done with a trained model, through the command line: compared, and asked for lists."""

import json

import polars as pl
import pytest
from own_csv_run import plum_command, run_plum


def test_two_evaluations_are_compared_user_by_user(finished, own_csv, tmp_path):
    model_dir, _ = finished
    first, second = (model_dir / "evaluation" / f"{name}.json" for name in ("with_cpt", "popularity"))
    command = plum_command(own_csv, tmp_path, run="compare")
    # This run reads two files and knows no pipeline.
    command = [*command[:3], "--gin_file=gin/run/compare.gin", f"--gin.MODEL_DIR='{tmp_path}'"]
    done = run_plum([*command, f"--gin.FIRST='{first}'", f"--gin.SECOND='{second}'"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "10 users, 95% intervals" in done.stdout and "recall@5_unseen" in done.stdout
    rows = {row["metric"]: row for row in json.loads((tmp_path / "comparison.json").read_text())["rows"]}
    stored = [json.loads(path.read_text())["row"] for path in (first, second)]
    for name in ("recall@1", "ndcg@5", "mrr@5_unseen"):
        assert rows[name]["first"] == pytest.approx(stored[0][name])
        assert rows[name]["second"] == pytest.approx(stored[1][name])
    ranks = pl.read_parquet(model_dir / "evaluation" / "with_cpt.per_user.parquet")
    assert ranks["user_id"].to_list() == [f"user {n}" for n in range(10)]
    assert ranks["target_item_id"].str.starts_with("tt").all() and "sid_rank" in ranks.columns
