"""Recommendations for all users: the evaluator's lists, whole after a kill, made again only when something changed."""

import dataclasses

import jax
import polars as pl
import pytest

from plum_jax import artifact
from plum_jax.retrieval import offline
from plum_jax.retrieval.recommend import Recommender

USER_IDS = [f"user-{n}" for n in range(30)]


def recommend(world, directory, params=None, **settings):
    settings = {"items_per_user": 4, "users_per_shard": 8} | settings
    path = offline.recommend_all(
        world.recommender, params or world.params, world.prompts, directory=directory, user_ids=USER_IDS, **settings
    )
    return str(path)


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


def test_more_items_than_beams_are_refused(world, tmp_path):
    narrow = dataclasses.replace(world, recommender=dataclasses.replace(world.recommender, num_beams=3))
    with pytest.raises(ValueError, match="at most 3 items a user"):
        recommend(narrow, tmp_path / "out")
