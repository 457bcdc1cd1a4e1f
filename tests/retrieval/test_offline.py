"""Recommendations for all users: the evaluator's lists, whole after a kill, made again only when something changed."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import jax
import polars as pl
import pytest
import worker_of_many

from plum_jax import artifact
from plum_jax.retrieval import offline, shards
from plum_jax.retrieval.recommend import Recommender
from plum_jax.retrieval.shards import Worker

USER_IDS = [f"user-{n}" for n in range(30)]


def recommend(world, directory, params=None, **settings):
    settings = {"items_per_user": 4, "users_per_shard": 8} | settings
    path = offline.recommend_all(
        world.recommender, params or world.params, world.prompts, directory=directory, user_ids=USER_IDS, **settings
    )
    return str(path)  # of the only process, so it is there


@pytest.mark.parametrize("remove_seen", [True, False])
def test_the_file_holds_each_user_s_best_items(world, tmp_path, remove_seen):
    frame = pl.read_parquet(recommend(world, tmp_path / "out", remove_seen=remove_seen))
    assert frame.columns == ["user_id", "rank", "item_id", "score"]
    ranking_of = world.unseen_ranking if remove_seen else world.ranking
    expected = []
    for row, user in enumerate(world.prompts["user"].to_list()):
        names = [f"item-{item}" for item in ranking_of(row)[:4]]
        expected += [(USER_IDS[user], rank, name) for rank, name in enumerate(names, start=1)]
    assert frame.select("user_id", "rank", "item_id").rows() == expected
    assert frame.group_by("user_id").agg(pl.col("score").diff().max())["score"].max() <= 0, "best first"


class Killed(Exception):
    pass


def counting_search(monkeypatch, calls, kill_at=None):
    search = Recommender.search

    def counted(self, *arguments, **settings):
        calls.append(1)
        if len(calls) == kill_at:
            raise Killed
        return search(self, *arguments, **settings)

    monkeypatch.setattr(Recommender, "search", counted)


def test_a_killed_run_goes_on_with_the_missing_shards(world, tmp_path, monkeypatch):
    whole = pl.read_parquet(recommend(world, tmp_path / "whole"))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        counting_search(patch, [], kill_at=3)
        recommend(world, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing half-written under the final name"
    calls = []
    counting_search(monkeypatch, calls)
    path = recommend(world, tmp_path / "out")
    assert len(calls) == 2, "four shards, two were there"
    assert pl.read_parquet(path).equals(whole)
    assert [p.name for p in tmp_path.iterdir() if "shards" in p.name] == [], "shards are cleared away at the end"
    recommend(world, tmp_path / "out")
    assert len(calls) == 2, "a second run finds the artefact and searches nothing"
    assert (
        artifact.read_manifest(tmp_path / "out", offline.KIND).inputs["sid_table"]
        == world.recommender.table.fingerprint
    )


def test_shards_of_other_parameters_are_not_reused(world, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        counting_search(patch, [], kill_at=3)
        recommend(world, tmp_path / "out")
    other = jax.tree.map(lambda x: -x, world.params)
    resumed = pl.read_parquet(recommend(world, tmp_path / "out", params=other))
    fresh = pl.read_parquet(recommend(world, tmp_path / "fresh", params=other))
    assert resumed.equals(fresh)
    again = pl.read_parquet(recommend(world, tmp_path / "out"))
    assert not again.equals(fresh), "an artefact of other parameters is made again"


def test_shards_of_another_size_are_not_mixed(world, tmp_path, monkeypatch):
    whole = pl.read_parquet(recommend(world, tmp_path / "whole"))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        counting_search(patch, [], kill_at=3)
        recommend(world, tmp_path / "out")
    assert pl.read_parquet(recommend(world, tmp_path / "out", users_per_shard=7)).equals(whole)


def test_a_damaged_shard_is_named_and_made_again_alone(world, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        counting_search(patch, [], kill_at=4)
        recommend(world, tmp_path / "out")
    shard = tmp_path / ".out.shards" / "shard-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1  # one bit, as a disk flips it
    shard.write_bytes(content)
    with pytest.raises(artifact.ArtifactError, match="shard-00001.parquet is damaged .*: delete it"):
        recommend(world, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shard.unlink()
    calls = []
    counting_search(monkeypatch, calls)
    path = recommend(world, tmp_path / "out")
    assert len(calls) == 1
    assert pl.read_parquet(path).equals(pl.read_parquet(recommend(world, tmp_path / "whole")))


def start_worker(directory, index, count, seconds):
    # XLA's flags are the tests' own: the random parameters hang on how far they are optimised, and a shard on those.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, worker_of_many.__file__, str(directory), str(index), str(count), str(seconds)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_share_the_shards_and_kill_9_costs_one(world, tmp_path, monkeypatch):
    """Ten shards, two processes: one is killed at work, the first one while it waits for it; both start again."""
    monkeypatch.setattr(shards, "PATIENCE_SECONDS", 120.0)
    whole = pl.read_parquet(recommend(world, tmp_path / "whole"))
    out, pieces = tmp_path / "out", tmp_path / ".out.shards"
    first, killed = (start_worker(out, index, 2, seconds) for index, seconds in enumerate((0, 3)))
    made = []
    while len(made) < 5:  # all of process 0
        assert first.poll() is None and not out.exists(), "the first waits for the other"
        made = [path for path in pieces.glob("shard-*") if int(path.stem[-5:]) % 2 == 0] if pieces.exists() else []
        time.sleep(0.05)
    for process in (killed, first):
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not out.exists()
    left = 10 - len(list(pieces.glob("shard-*")))
    again = start_worker(out, 1, 2, 0)
    path = recommend(world, out, users_per_shard=3, worker=Worker(0, 2))
    assert again.communicate(timeout=240)[0].splitlines() == ["1 made 3"] * left, "no shard is made twice"
    assert again.returncode == 0 and left > 1
    assert pl.read_parquet(path).equals(whole)
    assert not pieces.exists()
    assert recommend(world, out, users_per_shard=3, worker=Worker(1, 2)) == path, "who comes late finds all done"


def test_who_waits_in_vain_says_whom_for(world, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(shards, "_POLL_SECONDS", 0.0)
    with pytest.raises(artifact.ArtifactError, match="process 0 of 2 has not begun"):
        recommend(world, tmp_path / "out", worker=shards.Worker(1, 2))
    with pytest.raises(artifact.ArtifactError, match="2 of 4 are missing: start process 1 of 2 again"):
        recommend(world, tmp_path / "out", worker=shards.Worker(0, 2))
    whole = pl.read_parquet(recommend(world, tmp_path / "whole"))
    assert pl.read_parquet(recommend(world, tmp_path / "out")).equals(whole), "one alone makes what is missing"
    with pytest.raises(ValueError, match="from 0 to 1 of 2, got 2"):
        shards.Worker(2, 2)


def test_more_items_than_beams_are_refused(world, tmp_path):
    narrow = dataclasses.replace(world, recommender=dataclasses.replace(world.recommender, num_beams=3))
    with pytest.raises(ValueError, match="at most 3 items"):
        recommend(narrow, tmp_path / "out")
