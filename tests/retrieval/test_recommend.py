"""Batches by length, and Semantic IDs turned into items, against loops in Python."""

import copy
import dataclasses
import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from tiny_decoder import bigram_log_probs

from plum_jax.ragged import Ragged
from plum_jax.retrieval.length_batches import bucket_limits, length_batches
from plum_jax.retrieval.recommend import rank_items, select_rows
from plum_jax.semantic_ids.table import SidTable


def ragged(lists):
    return Ragged.from_series(pl.Series(lists, dtype=pl.List(pl.Int32)))


def test_ragged_reads_empty_and_missing_lists():
    lists = ragged([[1, 2, 3], [], None, [4]])
    assert lists.lengths.tolist() == [3, 0, 0, 1]
    assert lists.padded(np.array([3, 0, 2]), 2).tolist() == [[4, 0], [1, 2], [0, 0]]


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 9))
def test_no_choice_of_lengths_costs_less(lengths, num_buckets, shape_cost):
    lengths = np.array(lengths)

    def cost(limits):
        return np.asarray(limits)[np.searchsorted(limits, lengths)].sum() + shape_cost * len(limits)

    sizes = sorted(set(lengths.tolist()))
    best = min(
        cost([*chosen, sizes[-1]])
        for count in range(num_buckets)
        for chosen in itertools.combinations(sizes[:-1], min(count, len(sizes) - 1))
    )
    limits = bucket_limits(lengths, num_buckets, shape_cost)
    assert len(limits) <= num_buckets and limits[-1] == lengths.max()
    assert cost(limits) == best


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.lists(st.integers(0, 60), max_size=40), st.integers(1, 7), st.integers(1, 4))
def test_every_prompt_is_in_one_batch_that_holds_it(lengths, batch_size, num_buckets):
    lengths = np.repeat(np.array(lengths, dtype=np.int64), 1000)  # enough for more than one length to pay
    batch_size = 900 * batch_size
    batches = list(length_batches(lengths, batch_size, num_buckets))
    rows = [int(row) for batch, _ in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert len({length for _, length in batches}) <= num_buckets, "more shapes than asked for"
    for batch, length in batches:
        assert len(batch) <= batch_size and lengths[batch].max() <= length
        assert (length + 1) % 16 == 0, "prompts and their start token fill whole multiples of 16"


def test_lengths_are_few_for_few_users_and_several_for_many():
    lengths = np.random.default_rng(0).geometric(0.05, 20_000).clip(max=80)
    assert len({length for _, length in length_batches(lengths, 16, 4)}) == 4
    assert len({length for _, length in length_batches(lengths[:500], 16, 4)}) == 1, "compiling costs more than padding"


@st.composite
def beams(draw):
    """A table with collisions, distinct beams that do not all exist, and seen items."""
    num_items, num_users = draw(st.integers(1, 12)), 3
    code = st.tuples(st.integers(0, 2), st.integers(0, 2))
    codes = np.array(draw(st.lists(code, min_size=num_items, max_size=num_items)))
    popularity = np.array(draw(st.lists(st.integers(0, 3), min_size=num_items, max_size=num_items)))
    table = SidTable.create(codes, (3, 3), [f"i{n}" for n in range(num_items)], popularity=popularity)
    order = [draw(st.permutations(list(itertools.product(range(3), repeat=2)))) for _ in range(num_users)]
    found = np.array(order)[:, :6]
    found[0, 4:] = -1  # beams that were not filled
    seen = [draw(st.lists(st.integers(0, num_items - 1), max_size=5)) for _ in range(num_users)]
    return table, popularity, found, seen, draw(st.integers(1, 8))


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(beams(), st.booleans())
def test_items_are_those_of_each_sid_in_order_without_the_seen(drawn, remove_seen):
    table, popularity, codes, seen, k = drawn
    log_probs = np.where(codes[:, :, 0] < 0, -np.inf, -np.arange(6.0)).astype(np.float32)
    items, scores = rank_items(codes, log_probs, table, k, ragged(seen) if remove_seen else None)
    for user in range(len(codes)):
        expected = []
        for sid, score in zip(codes[user].tolist(), log_probs[user], strict=True):
            same = [item for item in range(table.num_items) if table.codes[item].tolist() == sid]
            same.sort(key=lambda item: (-popularity[item], item))
            expected += [(item, score) for item in same if not (remove_seen and item in seen[user])]
        expected = expected[:k] + [(-1, -np.inf)] * (k - len(expected))
        assert list(zip(items[user].tolist(), scores[user], strict=True)) == expected


def test_many_items_on_one_sid_cost_what_the_list_needs():
    table = SidTable.create(np.zeros((5000, 1), int), (2,), [str(n) for n in range(5000)])
    codes = np.zeros((2000, 1, 1), np.int32)  # 10 million pairs of user and item, if all were written out
    items, _ = rank_items(codes, np.zeros((2000, 1), np.float32), table, 3, ragged([[0, 2]] * 2000))
    assert (items == [1, 3, 4]).all()


@pytest.mark.parametrize(("rows", "wanted", "count"), [(10, None, 10), (10, 20, 10), (10, 4, 4), (10, 1, 1)])
def test_selected_rows_are_distinct_and_spread(rows, wanted, count):
    selected = select_rows(rows, wanted)
    assert len(set(selected.tolist())) == count and selected.max() < rows
    assert np.diff(selected).max(initial=0) <= -(-rows // count)


def test_a_prompt_begins_with_the_vocabularys_start_token(world):
    vocabulary = copy.copy(world.recommender.vocabulary)
    vocabulary.start_id = 5
    recommender = dataclasses.replace(world.recommender, vocabulary=vocabulary)
    codes, log_probs = recommender.search(world.params, ragged([[], [3]]), constrained=False)
    found = np.isfinite(log_probs[0])
    own = bigram_log_probs(world.params, 5, codes[0][found], vocabulary.sid_offsets)
    assert found.any()
    np.testing.assert_allclose(log_probs[0][found], own, rtol=1e-5)


def test_lists_without_seen_items_are_full_and_those_of_the_search_over_the_others(world):
    narrow = dataclasses.replace(world.recommender, num_beams=4)
    prompts, seen = (Ragged.from_series(world.prompts[name]) for name in ("prompt", "seen_items"))
    codes, log_probs = narrow.search(world.params, prompts, exclude=seen)
    items, _ = rank_items(codes, log_probs, narrow.table, 4, seen)
    for row in range(len(items)):
        assert items[row].tolist() == world.unseen_ranking(row)[:4], "bigrams: the beam of a level's best is exact"


def test_users_get_items_of_their_own_set(world):
    table = world.recommender.table
    recommender = dataclasses.replace(world.recommender, item_sets=(None, np.arange(5)))
    prompts = Ragged.from_series(world.prompts["prompt"])
    sets = np.arange(len(world.prompts)) % 2
    codes, _ = recommender.search(world.params, prompts, sets=sets)
    everything, _ = world.recommender.search(world.params, prompts)
    np.testing.assert_array_equal(codes[sets == 0], everything[sets == 0])
    own = {tuple(sid) for sid in table.codes[:5].tolist()}
    for row in np.flatnonzero(sets):
        assert {tuple(sid) for sid in codes[row].tolist()} - {(-1, -1)} == own


def test_samples_follow_from_seed_and_row_whatever_the_batch(world):
    prompts = Ragged.from_series(world.prompts["prompt"])
    one, other = (
        dataclasses.replace(world.recommender, batch_size=size).sample(world.params, prompts, num_samples=3, seed=5)
        for size in (4, 7)
    )
    np.testing.assert_array_equal(one[0], other[0])
    assert (world.recommender.table.lookup(one[0]) >= 0).all()
    again, _ = world.recommender.sample(world.params, prompts, num_samples=3, seed=6)
    assert (again != one[0]).any()
