"""What is done with a trained model, through the command line: compared, and asked for lists."""

import json
import subprocess

import polars as pl
import pytest
from own_csv_run import plum_arguments, plum_command, user_environment

from plum_jax.retrieval.serving_loader import Server


def test_two_evaluations_are_compared_user_by_user(finished, tmp_path, plum):
    model_dir, _ = finished
    first, second = (model_dir / "evaluation" / f"{name}.json" for name in ("with_cpt", "popularity"))
    settings = {"MODEL_DIR": tmp_path, "FIRST": first, "SECOND": second}
    bindings = [f"--gin.{name}='{value}'" for name, value in settings.items()]
    done = plum.run(["--gin_file=gin/run/compare.gin", *bindings])
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


def test_two_processes_share_the_users(finished, own_csv):
    model_dir, _ = finished
    more = ["--gin.ITEMS_PER_USER=4", "--gin.serving.recommend.users_per_shard=3"]
    command = plum_command(own_csv, model_dir, *more, run="recommend")
    processes = [
        subprocess.Popen(
            command,
            env={**user_environment(), "PROCESS_INDEX": str(index), "PROCESS_COUNT": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    printed = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert "process 1 of 2 has done its part" in printed[1][0] and "recommendations of with_cpt: " in printed[0][0]
    frame = pl.read_parquet(model_dir / "recommendations" / "recommendations.parquet")
    assert frame["user_id"].unique(maintain_order=True).to_list() == [f"user {n}" for n in range(10)]
    for (user,), of_user in frame.group_by("user_id", maintain_order=True):
        assert of_user["rank"].to_list() == list(range(1, of_user.height + 1)), user


def test_what_to_watch_after_each_item(finished, own_csv, plum):
    model_dir, _ = finished
    done = plum.run(plum_arguments(own_csv, model_dir, "--gin.ITEMS_PER_LIST=3", run="watch_next"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"watch-next table of with_cpt: {model_dir / 'watch_next' / 'watch_next.parquet'}" in done.stdout
    frame = pl.read_parquet(model_dir / "watch_next" / "watch_next.parquet")
    items = set(pl.read_csv(own_csv / "odd.csv")["Film No"])
    assert set(frame["item_id"]) == items and set(frame["next_item_id"]) <= items
    assert set(frame["rank"]) == {1, 2, 3}
    assert not frame.filter(pl.col("item_id") == pl.col("next_item_id")).height


def test_any_system_of_the_run_gives_lists(finished, plum):
    model_dir, _ = finished
    for job, name, of, count in (
        ("recommend", "recommendations", "user_id", 10),
        ("watch_next", "watch_next", "item_id", 9),
    ):
        done = plum.run([job, str(model_dir), "--gin.SYSTEM='popularity'"], model_dir.parent)
        assert done.returncode == 0 and "of popularity: " in done.stdout, done.stderr[-2000:]
        frame = pl.read_parquet(model_dir / name / f"{name}.parquet")
        assert frame[of].n_unique() == count and frame["score"].null_count() == frame.height
        done = plum.run([job, str(model_dir), "--gin.SYSTEM='sasrec'"], model_dir.parent)
        assert done.returncode == 1
        assert "SYSTEM is 'sasrec', but the run has item_knn, popularity, with_cpt" in done.stderr
    # After an item, what is most popular but itself.
    lists = frame.group_by("item_id", maintain_order=True).agg("next_item_id")
    assert all(item not in others and len(others) == 8 for item, others in lists.rows())
    most_popular = frame.group_by("item_id", maintain_order=True).first()["next_item_id"].value_counts(sort=True)
    assert most_popular["count"].to_list() == [8, 1]


def test_an_export_serves_the_users_of_the_evaluation(finished, own_csv, plum):
    model_dir, _ = finished
    done = plum.run(plum_arguments(own_csv, model_dir, "--gin.SERVING_LENGTHS=(63,)", run="export_serving"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"exported for serving: {model_dir / 'serving'}" in done.stdout
    server = Server(model_dir / "serving")
    events = pl.read_csv(own_csv / "odd.csv").sort("who?", "when (UTC)", maintain_order=True)
    histories = events.group_by("who?", maintain_order=True).agg(
        pl.col("Film No").head(9), target=pl.col("Film No").last()
    )
    prompts = [server.prompt(history) for history in histories["Film No"].to_list()]
    stored = pl.read_parquet(model_dir / "prompts" / "test" / "prompts.parquet")
    assert prompts == stored["prompt"].to_list(), "made of items as the templates make them"
    ranks = pl.read_parquet(model_dir / "evaluation" / "with_cpt.per_user.parquet")
    assert ranks["user_id"].to_list() == histories["who?"].to_list()
    for items, target, rank in zip(server.recommend(prompts, k=5), histories["target"], ranks["rank"], strict=True):
        names = [item for item, _ in items]
        assert (names.index(target) if target in names else None) == rank
