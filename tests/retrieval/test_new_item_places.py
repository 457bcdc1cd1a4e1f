"""Places for new items: which they are, who stands there, and that the rest keeps its order."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from test_offline import USER_IDS, recommend
from tiny_world import NUM_ITEMS

from plum_jax.ragged import Ragged
from plum_jax.retrieval.new_items import NewItems

NEW = np.isin(np.arange(NUM_ITEMS), [2, 5, 11, 17])


def test_a_share_is_every_so_manieth_place():
    for share, k, places in (
        (0.2, 10, [4, 9]),
        (0.1, 10, [9]),
        (0.1, 5, []),
        (0.3, 10, [3, 6, 9]),
        (0.7, 3, [1, 2]),
        (0.5, 4, [1, 3]),
    ):
        assert NewItems(NEW, share).places(k).tolist() == places
    assert NewItems.of(np.array([3, 0, 1]), 0.5, 5).items.tolist() == [False, True, False, True, True]
    assert NewItems.of(np.array([3, 0, 1]), 0.0) is None
    for items, share in ((NEW, 0.0), (NEW, 1.0), (np.zeros(4, bool), 0.5)):
        with pytest.raises(ValueError, match="expected a share above 0 and below 1"):
            NewItems(items, share)


def among_new(world, row):
    """Unseen new items of a user, best first, by the bigram model, each step normalised over their codes."""
    table, offsets = world.recommender.table, world.recommender.vocabulary.sid_offsets
    logits, codes = np.asarray(world.params["table"], np.float64), table.codes
    unseen = NEW & ~np.isin(np.arange(NUM_ITEMS), world.prompts["seen_items"][row].to_list())
    scores = {}
    for item in np.flatnonzero(unseen):
        token, among, score = world.prompts["prompt"][row][-1], unseen, 0.0
        for level in range(2):
            exist = np.unique(codes[among, level]) + offsets[level]
            chosen = codes[item, level] + offsets[level]
            score += logits[token, chosen] - np.logaddexp.reduce(logits[token, exist])
            token, among = chosen, among & (codes[:, level] == codes[item, level])
        scores[int(item)] = score
    order = sorted(scores, key=lambda item: (-scores[item], tuple(codes[item]), table.item_rank[item]))
    return [(item, scores[item]) for item in order]


def test_the_places_have_the_best_of_a_search_over_new_items_alone(world):
    new = NewItems(NEW, 0.5)
    prompts = [Ragged.from_series(world.prompts[name]) for name in ("prompt", "seen_items")]
    items, scores = new.found(world.recommender, world.params, prompts[0], 6, prompts[1])
    assert items.shape == (len(world.prompts), 3)
    for row in range(len(world.prompts)):
        expected = among_new(world, row)[:3]
        found = [item for item in items[row].tolist() if item >= 0]
        assert found == [item for item, _ in expected]
        np.testing.assert_allclose(scores[row, : len(found)], [score for _, score in expected], atol=1e-4)


def test_lists_for_all_users_have_them_and_the_rest_in_order(world, tmp_path):
    new = NewItems(NEW, 0.5)
    frame = pl.read_parquet(recommend(world, tmp_path / "new", new_items=new))
    plain = pl.read_parquet(recommend(world, tmp_path / "plain"))
    row_of = {USER_IDS[user]: row for row, user in enumerate(world.prompts["user"].to_list())}
    for user, names in frame.group_by("user_id").agg("item_id").iter_rows():
        fresh = [f"item-{item}" for item, _ in among_new(world, row_of[user])[:2]]
        rest = [f"item-{item}" for item in world.unseen_ranking(row_of[user]) if f"item-{item}" not in fresh]
        before = plain.filter(user_id=user)["item_id"].to_list()
        rest = [name for name in rest if name in before]
        expected = [rest[0], fresh[0], *rest[1:]]
        assert names[:2] == expected[:2] and set(fresh) <= set(names) and len(set(names)) == len(names)
        assert [name for name in names if name not in fresh] == rest[: len(names) - len(fresh)]
    changed = dataclasses.replace(new, share=0.3)
    again = pl.read_parquet(recommend(world, tmp_path / "new", new_items=changed))
    assert again.group_by("user_id").len()["len"].to_list() and not again.equals(frame)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.data())
def test_no_item_twice_and_no_item_lost_but_the_last(data):
    k = data.draw(st.integers(1, 8))
    row = data.draw(st.lists(st.integers(0, 19), unique=True, max_size=k))
    new = NewItems(NEW, data.draw(st.sampled_from([0.1, 0.25, 0.5, 0.9])))
    wanted = len(new.places(k))
    fresh = data.draw(st.lists(st.sampled_from(np.flatnonzero(NEW).tolist()), unique=True, max_size=wanted))
    lists = np.full((1, k), -1), np.full((1, k), -np.inf)
    lists[0][0, : len(row)], lists[1][0, : len(row)] = row, -np.arange(len(row))
    found = np.full((1, wanted), -1), np.full((1, wanted), -np.inf)
    found[0][0, : len(fresh)], found[1][0, : len(fresh)] = fresh, 100.0
    items, scores = new.placed(lists, found)
    kept = [item for item in items[0].tolist() if item >= 0]
    assert len(set(kept)) == len(kept) and set(fresh) <= set(kept)
    others = [item for item in row if item not in fresh]
    assert [item for item in kept if item not in fresh] == others[: k - len(fresh)]
    assert [items[0, place] for place in new.places(k)[: len(fresh)]] == fresh
    assert all(
        (score == 100.0) == (item in fresh) for item, score in zip(items[0], scores[0], strict=True) if item >= 0
    )
