"""A search without some items against the search over the others."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
from searches import SIZES, bigram_beam, search
from tiny_decoder import random_bigram

from plum_jax.retrieval.exclusion import exclude_items
from plum_jax.retrieval.sorted_sids import SortedSids
from plum_jax.retrieval.trie import SidTrie
from plum_jax.semantic_ids.table import SidTable

# Some SIDs are shared, and prefixes end in one item, in two, in many.
CODES = np.random.default_rng(0).integers(0, (3, 3, 3), (24, 3))
TABLE = SidTable.create(CODES, SIZES, [f"item-{n}" for n in range(len(CODES))])
PROMPTS = [[3, 1], [5], [2, 2, 6]]
MODEL, PARAMS = random_bigram(SIZES, seed=1)


def exclusion(lists, sets=(0, 0, 0), item_sets=(None,)):
    user = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
    item = np.concatenate([np.array(x, int) for x in lists])
    return exclude_items(TABLE.items_of_sid(), user, item, np.array(sets), item_sets)


def assert_searched(found, row, items, num_beams, scores="model"):
    """The row is a beam search over the trie of these items, full where they have enough SIDs."""
    codes, log_probs = found[0][row], found[1][row]
    if len(items):
        expected = bigram_beam(PARAMS, PROMPTS[row][-1], num_beams, CODES[items], scores)
        np.testing.assert_array_equal(codes[: len(expected[0])], expected[0])
        np.testing.assert_allclose(log_probs[: len(expected[0])], expected[1], rtol=1e-5)
        codes, log_probs = codes[len(expected[0]) :], log_probs[len(expected[0]) :]
    assert (codes == -1).all() and (log_probs == -np.inf).all(), "and nothing else"


prefixes = st.sampled_from([CODES[:, 0] == 0, CODES[:, 0] == 1, (CODES[:, :2] == 1).all(axis=1), CODES[:, 0] < 2])
lists = st.one_of(
    st.lists(st.integers(0, len(CODES) - 1), max_size=24),
    prefixes.map(lambda mask: np.flatnonzero(mask).tolist()),  # all items of a prefix
    st.just(list(range(len(CODES)))),
)


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(st.tuples(lists, lists, lists), st.sampled_from(["model", "renormalised"]))
def test_a_search_without_items_is_one_over_the_others(seen, scores):
    found = search(MODEL, PARAMS, 5, CODES, prompts=PROMPTS, excluded=exclusion(seen), scores=scores)
    for row, items in enumerate(seen):
        assert_searched(found, row, np.setdiff1d(np.arange(len(CODES)), items), 5, scores)


def test_of_a_set_of_items_only_its_own_count():
    """A SID whose other items are not in the set goes with the set's last one."""
    even = np.arange(len(CODES)) % 2 == 0
    item_sets, sets = [even, np.arange(12), None], [0, 1, 0]
    seen = [[0, 2, 4, 6, 8], [1, 3, 5, 20], list(range(0, 24, 2))]
    trie = SidTrie.build(SortedSids.from_codes(CODES, SIZES), item_sets)
    excluded = exclusion(seen, sets, item_sets)
    found = search(MODEL, PARAMS, 5, trie=trie, prompts=PROMPTS, sets=jnp.array(sets), excluded=excluded)
    for row, items in enumerate(seen):
        own = np.arange(len(CODES))[item_sets[sets[row]]]
        assert_searched(found, row, np.setdiff1d(own, items), 5)


def test_long_lists_are_padded_to_powers_of_two():
    index = SidTable.create(np.arange(40)[:, None], (40,), [str(n) for n in range(40)]).items_of_sid()
    for number, width in ((0, 16), (16, 16), (17, 32), (33, 64)):
        excluded = exclude_items(index, np.ones(number, int), np.arange(number), np.zeros(2, int))
        assert excluded.lengths.shape == (2, width)
        assert int((excluded.lengths > 0).sum()) == number and not jnp.any(excluded.lengths[0])
