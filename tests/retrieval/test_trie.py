"""The trie against a dictionary of prefixes."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.retrieval.trie import SidTrie


@st.composite
def sid_sets(draw):
    sizes = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    rows = draw(st.lists(st.tuples(*(st.integers(0, size - 1) for size in sizes)), min_size=1, max_size=20))
    return np.array(rows), sizes


def continuations(codes, prefix):
    return sorted({int(row[len(prefix)]) for row in codes if tuple(row[: len(prefix)]) == prefix})


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(sid_sets())
def test_children_are_the_continuations_of_each_prefix(drawn):
    codes, sizes = drawn
    trie = SidTrie.from_codes(codes, sizes)
    numbered = [((), 0)]  # prefixes of a level with the trie's numbers for them
    for level in range(len(sizes)):
        found = []
        for prefix, number in numbered:
            child_codes, children, valid = (np.asarray(x) for x in trie.children(level, jnp.int32(number)))
            assert child_codes[valid].tolist() == continuations(codes, prefix), f"children of {prefix}"
            pairs = zip(child_codes[valid].tolist(), children[valid].tolist(), strict=True)
            found += [((*prefix, code), child) for code, child in pairs]
        assert trie.num_prefixes[level] == len(found) == len({tuple(row[: level + 1]) for row in codes.tolist()})
        assert trie.fan_out[level] == max(len(continuations(codes, prefix)) for prefix, _ in numbered)
        numbered = found
    assert [prefix for prefix, _ in numbered] == sorted({tuple(row) for row in codes.tolist()}), "SIDs in order"
    assert [number for _, number in numbered] == list(range(len(numbered))), "numbers are places in that order"


def test_size_is_two_integers_for_each_prefix():
    codes = np.random.default_rng(0).integers(0, 256, (5000, 4))
    trie = SidTrie.from_codes(codes, (256,) * 4)
    stored = sum(x.size for x in (*trie.codes, *trie.first_child))
    assert stored <= 2 * sum(trie.num_prefixes) + 2 * trie.num_levels, "no table over pairs of codes"


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
    with pytest.raises(ValueError, match=message):
        SidTrie.from_codes(codes, (3, 4))


def test_scores_and_take_walk_to_the_rows():
    codes = np.unique(np.random.default_rng(0).integers(0, (3, 4, 5), (30, 3)), axis=0)
    trie = SidTrie.from_codes(codes, (3, 4, 5))
    state, paths = trie.root(2), np.zeros((2, 1, 0), int)
    for level, size in enumerate((3, 4, 5)):
        width = state.index.shape[1]
        excluded = jnp.array([[3, -1], [-1, -1]]) if level == 2 else None
        log_probs = jnp.asarray(np.random.default_rng(level).normal(size=(2, width, size)), jnp.bfloat16)
        scores = trie.scores(level, state, log_probs, excluded)
        assert scores.dtype == jnp.bfloat16
        places = np.argwhere(np.asarray(scores[1]) > -np.inf)
        assert len(places) == trie.num_prefixes[level]
        parent, place = (jnp.asarray(np.broadcast_to(x, (2, len(places)))) for x in places.T)
        chosen, state = trie.take(level, state, parent, place)
        np.testing.assert_array_equal(scores[1, parent[1], place[1]], log_probs[1, parent[1], chosen[1]])
        paths = np.concatenate([paths[:, places[:, 0]], chosen[..., None]], axis=2)
    np.testing.assert_array_equal(paths[1], codes)
    np.testing.assert_array_equal(trie.rows(state)[1], np.arange(len(codes)))
    assert int((scores[0] > -np.inf).sum()) == len(codes) - 1, "row 3 is out, for user 0 alone"
