"""The evaluator against a brute-force ranking of every item."""

import dataclasses
import math

import numpy as np
import pytest

from plum_jax.ragged import Ragged
from plum_jax.systems.generative.evaluator import RetrievalEvaluator


@pytest.fixture(scope="module")
def evaluator(world):
    return RetrievalEvaluator(world.recommender, world.prompts, ks=(1, 5))


@pytest.fixture(scope="module")
def found(world, evaluator):
    return evaluator(world.params)


def test_recall_and_ndcg_are_those_of_brute_force(world, found):
    targets = world.prompts["target_item"].to_list()
    for ranking_of, suffix in ((world.ranking, ""), (world.unseen_ranking, "_unseen")):
        hits, gains, shown = [], [], set()
        for row, target in enumerate(targets):
            first = ranking_of(row)[:5]
            shown |= set(first)
            hits.append(float(target in first))
            gains.append(1 / math.log2(first.index(target) + 2) if target in first else 0.0)
        assert 0 < sum(hits) < len(hits), "a test that all or none pass shows nothing"
        assert found[f"recall@5{suffix}"] == pytest.approx(np.mean(hits))
        assert found[f"ndcg@5{suffix}"] == pytest.approx(np.mean(gains))
        assert found[f"recall@5{suffix}_se"] == pytest.approx(np.std(hits, ddof=1) / math.sqrt(len(hits)))
        assert found[f"coverage@5{suffix}"] == pytest.approx(len(shown) / world.recommender.table.num_items)


def test_sid_recall_counts_the_sid_and_so_flatters_collisions(world, found):
    table = world.recommender.table
    hits = []
    for row, target in enumerate(world.prompts["target_item"].to_list()):
        sids = list(dict.fromkeys(tuple(table.codes[item]) for item in world.ranking(row)))
        hits.append(tuple(table.codes[target]) in sids[:5])
    assert found["sid_recall@5"] == pytest.approx(np.mean(hits))
    assert found["sid_recall@5"] > found["recall@5"]


def test_valid_share_is_the_part_of_free_beams_that_exist(world, found):
    table = world.recommender.table
    everything = np.stack(np.meshgrid(*map(np.arange, table.codebook_sizes), indexing="ij"), -1).reshape(-1, 2)
    full = dataclasses.replace(
        table,
        codes=everything,
        item_ids=np.arange(len(everything)).astype(str),
        item_rank=np.zeros(len(everything), np.int32),
    )
    # A search among all codes, by the constrained path, is the free search.
    everywhere = dataclasses.replace(world.recommender, table=full)
    codes, _ = everywhere.search(world.params, Ragged.from_series(world.prompts["prompt"]))
    exist = {tuple(sid) for sid in table.codes.tolist()}
    shares = [np.mean([tuple(sid) in exist for sid in row[:5].tolist()]) for row in codes]
    assert found["valid_share"] == pytest.approx(np.mean(shares))
    assert 0 < found["valid_share"] < 1


def test_per_user_ranks_give_the_same_means(world, evaluator, found):
    ranks = evaluator.judge(world.params)[1]
    assert ranks["user"].to_list() == world.prompts["user"].to_list()
    for column, name in (("rank", "recall@5"), ("rank_unseen", "recall@5_unseen"), ("sid_rank", "sid_recall@5")):
        assert (ranks[column] < 5).fill_null(False).mean() == pytest.approx(found[name]), name
    row = 3
    brute_force = world.ranking(row).index(world.prompts["target_item"][row])
    assert ranks["rank"][row] == (brute_force if brute_force < 5 else None)


def test_the_order_of_the_users_plays_no_part(world, found):
    backwards = RetrievalEvaluator(world.recommender, world.prompts.reverse(), ks=(1, 5))(world.params)
    assert backwards == pytest.approx(found)


def test_a_sample_of_users_is_always_the_same(world):
    some = RetrievalEvaluator(world.recommender, world.prompts, ks=(5,), max_users=7, free_search_users=0)
    first = some(world.params)
    assert first == some(world.params)
    assert some.judge(world.params)[1].height == 7 and "valid_share" not in first


def test_what_cannot_be_evaluated_is_refused(world):
    with pytest.raises(ValueError, match="num_beams of at least 50"):
        RetrievalEvaluator(world.recommender, world.prompts, ks=(10, 50))
    with pytest.raises(ValueError, match="at least one prompt row"):
        RetrievalEvaluator(world.recommender, world.prompts[:0])
    other = dataclasses.replace(world.recommender.table, codebook_sizes=(3, 5))
    with pytest.raises(ValueError, match=r"codebooks \(3, 4\), the SidTable has \(3, 5\)"):
        dataclasses.replace(world.recommender, table=other)
