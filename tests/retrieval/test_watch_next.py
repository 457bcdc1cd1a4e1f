"""Watch-next tables against the brute-force ranking of every item after every item."""

import polars as pl
import pytest
from tiny_decoder import bigram_log_probs
from tiny_world import NUM_ITEMS

from plum_jax.retrieval import watch_next
from plum_jax.retrieval.recommend import Recommender


def prompts(world):
    """After an item, its SID: the bigram model looks at the last code alone."""
    tokens = world.recommender.vocabulary.encode_sid(world.recommender.table.codes)
    return pl.DataFrame(
        {"item": range(NUM_ITEMS), "prompt": tokens.tolist()}, schema={"item": pl.Int32, "prompt": pl.List(pl.Int32)}
    )


def table(world, directory, **settings):
    settings = {"items_per_list": 5, "prompts_per_shard": 6} | settings
    path = watch_next.write_watch_next(world.recommender, world.params, prompts(world), directory=directory, **settings)
    return pl.read_parquet(str(path))


def test_each_item_s_list_is_the_best_of_the_others(world, tmp_path):
    frame = table(world, tmp_path / "out")
    assert frame.columns == ["item_id", "rank", "next_item_id", "score"]
    codes, rank = world.recommender.table.codes, world.recommender.table.item_rank
    offsets = world.recommender.vocabulary.sid_offsets
    expected = []
    for item in range(NUM_ITEMS):
        scores = bigram_log_probs(world.params, codes[item][-1] + offsets[-1], codes, offsets)
        order = sorted(range(NUM_ITEMS), key=lambda i: (-scores[i], tuple(codes[i]), rank[i]))
        best = [i for i in order if i != item][:5]
        expected += [(f"item-{item}", place, f"item-{i}") for place, i in enumerate(best, start=1)]
        of_item = frame.filter(pl.col("item_id") == f"item-{item}")["score"].to_list()
        assert of_item == pytest.approx([scores[i] for i in best], abs=1e-5)
    assert frame.drop("score").rows() == expected


def test_a_killed_table_goes_on(world, tmp_path, monkeypatch):
    whole = table(world, tmp_path / "whole")
    search, calls = Recommender.search, []

    def counted(self, *arguments, **settings):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return search(self, *arguments, **settings)

    monkeypatch.setattr(Recommender, "search", counted)
    with pytest.raises(KeyboardInterrupt):
        table(world, tmp_path / "out")
    assert table(world, tmp_path / "out").equals(whole)
    assert len(calls) == 3 + 2, "of four shards two were there"


def test_lists_longer_than_the_beams_are_refused(world, tmp_path):
    with pytest.raises(ValueError, match=f"lists of at most {NUM_ITEMS} items"):
        table(world, tmp_path / "out", items_per_list=NUM_ITEMS + 1)
