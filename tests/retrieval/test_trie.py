"""The trie against a dictionary of prefixes: what continues each one, in every layout that a level can have."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.retrieval.sorted_sids import SidSetError, SortedSids
from plum_jax.retrieval.trie import SidTrie, TrieState

SIZES = [(5,), (3, 70), (1, 4, 9), (40, 2, 6, 3)]
WIDTH = 64  # prefixes of a walk, so that its programs are few


@st.composite
def sid_sets(draw):
    sizes = draw(st.sampled_from(SIZES))
    kind = draw(st.sampled_from(["one item", "one prefix", "random", "skewed"]))
    seed, count = draw(st.integers(0, 1000)), draw(st.integers(1, WIDTH))
    uniform = np.random.default_rng(seed).random((1 if kind == "one item" else count, len(sizes)))
    codes = (uniform ** (4 if kind == "skewed" else 1) * np.array(sizes)).astype(int)
    if kind == "one prefix":
        codes[:, :-1] = codes[0, :-1]
    return codes, sizes, draw(st.sampled_from([1, 3, 32]))


@jax.jit
def root(trie, number):
    return trie.root(1, number)


children = jax.jit(SidTrie.children, static_argnums=1)
scores_of = jax.jit(SidTrie.scores, static_argnums=1)
take = jax.jit(SidTrie.take, static_argnums=1)


def padded(values):
    return jnp.asarray(np.concatenate([values, np.full(WIDTH - len(values), values[0], np.int32)]).astype(np.int32))


def walk(trie, codes, number=0):
    """Goes to every prefix of `codes` through set `number`: paths and rows of the last level, in the trie's order."""
    state = jax.tree.map(lambda x: padded(np.asarray(x[0]))[None], root(trie, jnp.array([number])))
    prefixes = [()]
    for level in range(codes.shape[1]):
        child_codes, states, valid = jax.tree.map(np.asarray, children(trie, level, state))
        found, chosen = [], []
        for place, prefix in enumerate(prefixes):
            expected = sorted({int(row[level]) for row in codes if tuple(row[:level]) == prefix})
            here = np.flatnonzero(valid[0, place])
            assert child_codes[0, place, here].tolist() == expected, f"children of {prefix}"
            found += [(*prefix, code) for code in expected]
            chosen += [(place, at) for at in here]
        assert trie.num_prefixes[level] >= len(found)
        places, at = np.array(chosen).T
        state = TrieState(*(padded(x[0, places, at])[None] for x in (states.index, states.count)))
        prefixes = found
    return prefixes, np.asarray(trie.rows(state))[0, : len(prefixes)].tolist()


@hypothesis.settings(deadline=None, max_examples=10, derandomize=True)
@hypothesis.given(sid_sets())
def test_children_are_the_continuations_of_each_prefix(drawn):
    codes, sizes, window = drawn
    trie = SidTrie.build(SortedSids.from_codes(codes, sizes), window=window)
    sids = sorted({tuple(row) for row in codes.tolist()})
    assert walk(trie, codes) == (sids, list(range(len(sids))))
    assert trie.num_prefixes == tuple(len({sid[: n + 1] for sid in sids}) for n in range(len(sizes)))


def test_every_layout_is_met():
    """Bitmaps, lists and rows in one level, rows alone: the table that shows each, walked through."""
    rng = np.random.default_rng(3)
    crowded = np.stack([np.zeros(40, int), np.zeros(40, int), rng.integers(0, 30, 40), rng.integers(0, 9, 40)], axis=1)
    codes = np.concatenate([crowded, rng.integers(0, (2, 100, 1000, 9), (24, 4))])
    trie = SidTrie.build(SortedSids.from_codes(codes, (2, 100, 1000, 9)), window=5)
    first, second, third, last = trie.levels
    assert first.dense, "bitmaps"
    assert second.has_nodes, "nodes alone"
    assert third.has_nodes and third.num_rows and not third.dense, "lists and rows side by side"
    assert not last.has_nodes, "rows alone"
    sids = sorted({tuple(row) for row in codes.tolist()})
    assert walk(trie, codes)[0] == sids


def test_several_sets_in_one_trie_are_separate_tries():
    rng = np.random.default_rng(0)
    codes, sizes = rng.integers(0, (3, 4, 70), (60, 3)), (3, 4, 70)
    sids = SortedSids.from_codes(codes, sizes)
    sets = [None, rng.random(60) < 0.3, np.array([7, 3, 3]), np.array([59])]
    stacked = SidTrie.build(sids, sets, window=4)
    whole = sorted({tuple(row) for row in codes.tolist()})
    for number, items in enumerate(sets):
        subset = codes if items is None else codes[items]
        own = sorted({tuple(row) for row in subset.tolist()})
        rows_in_table = [whole.index(sid) for sid in own]
        assert walk(stacked, subset, number) == (own, rows_in_table)
        assert walk(SidTrie.build(sids, [items], window=4), subset) == (own, rows_in_table)
    states = stacked.root(3, jnp.array([3, 0, 1]))
    np.testing.assert_array_equal(states.index[:, 0], np.asarray(stacked.root_index)[[3, 0, 1]])
    assert stacked.num_sets == 4


def test_scores_and_take_walk_to_the_rows_in_any_dtype():
    codes = np.unique(np.random.default_rng(0).integers(0, (3, 4, 70), (30, 3)), axis=0)
    trie = SidTrie.from_codes(codes, (3, 4, 70))
    state, paths = trie.root(2), np.zeros((2, 1, 0), int)
    for level, size in enumerate((3, 4, 70)):
        width = state.index.shape[1]
        log_probs = jnp.asarray(np.random.default_rng(level).normal(size=(2, width, size)), jnp.bfloat16)
        scores = scores_of(trie, level, state, log_probs)
        assert scores.dtype == jnp.bfloat16
        assert scores.shape[2] == trie.fan_out[level]
        places = np.argwhere(np.asarray(scores[1]) > -np.inf)
        assert len(places) == trie.num_prefixes[level]
        parent, place = (jnp.asarray(np.broadcast_to(x, (2, len(places)))) for x in places.T)
        chosen, state = take(trie, level, state, parent, place)
        np.testing.assert_array_equal(scores[1, parent[1], place[1]], log_probs[1, parent[1], chosen[1]])
        paths = np.concatenate([paths[:, places[:, 0]], chosen[..., None]], axis=2)
    np.testing.assert_array_equal(paths[1], codes)
    np.testing.assert_array_equal(trie.rows(state)[1], np.arange(len(codes)))


def test_a_dead_beam_stays_inside_the_arrays():
    """From places that do not exist the search goes on with some state: each further level must answer, in bounds."""
    codes = np.random.default_rng(1).integers(0, (70, 9, 9, 9), (50, 4))
    trie = SidTrie.build(SortedSids.from_codes(codes, (70, 9, 9, 9)), window=2)
    state = trie.root(1)
    for level, here in enumerate(trie.levels):
        place = jnp.full((1, 1), here.fan_out - 1)
        code, state = take(trie, level, state, jnp.zeros((1, 1), jnp.int32), place)
        assert 0 <= int(code[0, 0]) < trie.codebook_sizes[level]
        if level < 3:
            below = trie.levels[level + 1]
            limit = below.bitmap.shape[0] if below.dense else below.codes.shape[0]
            assert 0 <= int(state.index[0, 0]) < limit


def test_wide_codes_and_more_than_one_word_of_key():
    sizes = (70_000, 3, *(2048,) * 6)
    codes = np.random.default_rng(0).integers(0, sizes, (40, 8))
    codes[20:] = codes[:20]
    codes[20:, 7] = (codes[20:, 7] + 1) % 2048  # ties in all but the last word
    trie = SidTrie.from_codes(codes, sizes)
    assert walk(trie, codes)[0] == sorted(tuple(row) for row in codes.tolist())
    assert trie.levels[0].codes.dtype == jnp.uint32


def test_two_bytes_a_row_where_prefixes_are_rare():
    codes = np.random.default_rng(0).integers(0, 256, (5000, 6))
    trie = SidTrie.from_codes(codes, (256,) * 6)
    tail = [level for level in trie.levels if not level.has_nodes]
    assert len(tail) >= 4
    rows = 5000 * 1.04  # arrays have room, so that the next catalogue fits the same program
    assert sum(x.nbytes for x in jax.tree.leaves(tail)) <= 2 * rows * len(tail) + 100
    # STATIC: 8 bytes for each prefix and 4 for each state of length 2 to 6, and 5 for each pair of codes.
    assert trie.num_bytes < 0.5 * (12 * sum(trie.num_prefixes[1:]) + 5 * 256 * 256)


def test_tries_of_nearly_equal_size_share_a_program():
    codes = np.random.default_rng(0).integers(0, 64, (1990, 3))
    one, other = (SidTrie.from_codes(codes[:count], (64,) * 3) for count in (1988, 1990))
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), trie.levels) for trie in (one, other)]
    assert shapes[0] == shapes[1]


def test_fingerprint_is_of_the_set_of_sids():
    codes = np.random.default_rng(0).integers(0, 9, (50, 3))
    trie = SidTrie.from_codes(codes, (9, 9, 9))
    assert SidTrie.from_codes(np.concatenate([codes[::-1], codes[:5]]), (9, 9, 9)).fingerprint == trie.fingerprint
    others = [
        SidTrie.from_codes(codes, (9, 9, 10)),
        SidTrie.from_codes(codes[:-1], (9, 9, 9)),
        SidTrie.from_codes(codes, (9, 9, 9), np.arange(49)),
    ]
    assert len({trie.fingerprint, *(other.fingerprint for other in others)}) == 3, "a subset is its own set"


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((0, 2), int), "at least one item"),
        (np.zeros((3, 3), int), r"codes \[N, 2\]"),
        (np.array([[0, 1], [2, 4]]), "row 1 has code 4 at level 1, expected 0..3"),
        (np.array([[-1, 1]]), "row 0 has code -1 at level 0"),
    ],
)
def test_wrong_codes_are_named(codes, message):
    with pytest.raises(SidSetError, match=message):
        SidTrie.from_codes(codes, (3, 4))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (np.zeros(3, bool), "empty set: check the subset's filter"),
        (np.zeros(0, int), "empty set"),
        (np.ones(4, bool), "a mask of 3 items"),
        (np.array([0, 3]), "item numbers 0..2, got 0..3"),
    ],
)
def test_wrong_subsets_are_named(items, message):
    with pytest.raises(SidSetError, match=message):
        SidTrie.from_codes(np.array([[0, 1], [2, 3], [1, 1]]), (3, 4), items)


def test_no_set_at_all_and_windows_that_do_not_fit_a_byte():
    sids = SortedSids.from_codes(np.array([[0, 1]]), (3, 4))
    for arguments in ({"sets": []}, {"window": 0}, {"window": 256}):
        with pytest.raises(SidSetError, match="window of 1..255"):
            SidTrie.build(sids, **arguments)


def test_a_trie_is_a_pytree_whose_program_does_not_depend_on_its_content():
    codes = np.random.default_rng(0).integers(0, 9, (50, 3))
    trie = SidTrie.from_codes(codes, (9, 9, 9))
    moved = dataclasses.replace(trie, digest=trie.digest + 1)
    assert jax.tree.structure(trie) == jax.tree.structure(moved)
