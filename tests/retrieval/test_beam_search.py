"""Beam search against the full forward pass over every item, and against a beam written out in Python."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import searches
from searches import SIZES, all_sids, bigram_beam, some_sids
from tiny_decoder import TEXT_TOKENS, bigram_log_probs, random_bigram, sid_log_probs, sid_offsets, tiny_decoder

from plum_jax.retrieval.beam_search import beam_search
from plum_jax.retrieval.sorted_sids import SortedSids
from plum_jax.retrieval.trie import SidTrie
from plum_jax.training.mesh import MeshShape, batch_sharding, logical_axes, parameter_shardings, replicated

PROMPTS = [[3, 1, 4, 1, 5], [2], [6, 5, 4, 3, 2, 1, 9, 8], []]
search = functools.partial(searches.search, prompts=PROMPTS)


def assert_same_ranking(codes, log_probs, expected_codes, expected_log_probs):
    """Equal scores in order, and each SID with its own score (near-ties may change places)."""
    np.testing.assert_allclose(log_probs, expected_log_probs, rtol=1e-5)
    score = {tuple(sid): value for sid, value in zip(expected_codes.tolist(), expected_log_probs, strict=True)}
    assert {tuple(sid) for sid in codes.tolist()} == set(score), "another set of SIDs"
    own = [score[tuple(sid)] for sid in codes.tolist()]
    np.testing.assert_allclose(log_probs, own, rtol=1e-5, err_msg="a SID with another's score")


def test_a_beam_as_wide_as_the_catalogue_scores_every_item():
    decoder, params = tiny_decoder(SIZES, num_layers=2, scan_layers=False, tied_embeddings=False)
    items = np.unique(np.random.default_rng(1).integers(0, SIZES, (25, 3)), axis=0)
    codes, log_probs = search(decoder, params, len(items), items)
    for row, prompt in enumerate(PROMPTS):
        scores = sid_log_probs(decoder, params, prompt, items, SIZES).sum(axis=1)
        order = np.argsort(-scores)
        assert_same_ranking(codes[row], log_probs[row], items[order], scores[order])


def beam_in_python(decoder, params, prompt, num_beams, items):
    """Beam search by the book: extend every prefix by every code that some item has there, keep the best."""
    beams = [()]
    for level in range(items.shape[1]):
        prefixes = np.unique(items[:, : level + 1], axis=0)
        prefixes = np.array([prefix for prefix in prefixes if tuple(prefix[:level]) in beams])
        scores = sid_log_probs(decoder, params, prompt, prefixes, SIZES).sum(axis=1)
        best = np.argsort(-scores)[:num_beams]
        beams = [tuple(prefix) for prefix in prefixes[best]]
    return np.array(beams), scores[best]


@pytest.mark.parametrize("constrained", [True, False])
def test_a_narrow_beam_keeps_what_a_beam_of_that_width_keeps(constrained):
    decoder, params = tiny_decoder(SIZES, num_layers=2)
    items = np.unique(np.random.default_rng(2).integers(0, SIZES, (25, 3)), axis=0) if constrained else all_sids(SIZES)
    codes, log_probs = search(decoder, params, 4, items if constrained else None)
    for row, prompt in enumerate(PROMPTS):
        assert_same_ranking(codes[row], log_probs[row], *beam_in_python(decoder, params, prompt, 4, items))


def test_the_trie_changes_nothing_when_every_sid_is_an_item():
    decoder, params = tiny_decoder(SIZES, num_layers=2)
    free = search(decoder, params, 4)
    constrained = search(decoder, params, 4, all_sids(SIZES))
    np.testing.assert_array_equal(constrained[0], free[0], err_msg="other SIDs than the free search's")
    np.testing.assert_allclose(constrained[1], free[1], rtol=1e-6)


@st.composite
def item_sets(draw):
    """SIDs of items: any, one item, all under one prefix, or each given twice."""
    sizes = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    code_rows = st.lists(st.tuples(*(st.integers(0, size - 1) for size in sizes)), min_size=1, max_size=9)
    items = np.array(draw(code_rows))
    kind = draw(st.sampled_from(["any", "one item", "shared prefix", "twice"]))
    if kind == "one item":
        items = items[:1]
    if kind == "shared prefix":
        items[:, :-1] = items[0, :-1]
    if kind == "twice":
        items = np.concatenate([items, items])
    return items, sizes


@hypothesis.settings(deadline=None, max_examples=8)
@hypothesis.given(item_sets(), st.integers(1, 12), st.integers(0, 1000))
def test_found_sids_are_items_distinct_sorted_and_as_many_as_there_are(drawn, num_beams, seed):
    items, sizes = drawn
    model, params = random_bigram(sizes, seed)
    prompts = [[3, 1], [5]]
    codes, log_probs = search(model, params, num_beams, items, sizes, prompts=prompts)
    exist = np.unique(items, axis=0)
    expected = min(num_beams, len(exist))
    for row, prompt in enumerate(prompts):
        sids = codes[row, :expected].tolist()
        assert all(sid in exist.tolist() for sid in sids), f"{sids} are not all items {exist.tolist()}"
        assert len({tuple(sid) for sid in sids}) == expected, "a SID was found twice"
        own = bigram_log_probs(params, prompt[-1], sids, sid_offsets(sizes))
        np.testing.assert_allclose(log_probs[row, :expected], own, rtol=1e-5, err_msg="not the SID's own score")
        assert (np.diff(log_probs[row, :expected]) <= 0).all(), "best first"
        assert (codes[row, expected:] == -1).all() and (log_probs[row, expected:] == -np.inf).all(), "no more SIDs"
        if num_beams >= len(exist):
            scores = np.sort(bigram_log_probs(params, prompt[-1], exist, sid_offsets(sizes)))[::-1]
            np.testing.assert_allclose(log_probs[row, :expected], scores, rtol=1e-5, err_msg="not every item's score")


def test_a_user_s_answer_does_not_depend_on_the_batch():
    decoder, params = tiny_decoder(SIZES, num_layers=2)
    together = search(decoder, params, 4, all_sids(SIZES))
    for row, prompt in enumerate(PROMPTS):
        alone = search(decoder, params, 4, all_sids(SIZES), prompts=[prompt] * len(PROMPTS), longest=8)
        np.testing.assert_array_equal(alone[0][0], together[0][row])
        np.testing.assert_allclose(alone[1][0], together[1][row], rtol=1e-5)


def test_a_trie_of_other_codebooks_is_refused():
    model, params = random_bigram(SIZES)
    with pytest.raises(ValueError, match=r"trie over codebook_sizes=\(4, 5, 3\), got one over \(4, 5, 4\)"):
        beam_search(
            model,
            params,
            jnp.zeros((1, 2), jnp.int32),
            jnp.ones(1, jnp.int32),
            sid_offsets=sid_offsets(SIZES),
            codebook_sizes=SIZES,
            num_beams=2,
            trie=SidTrie.from_codes(np.array([[0, 0, 0]]), (4, 5, 4)),
        )


def test_a_prompt_begins_with_the_start_token():
    model, params = random_bigram(SIZES)
    for start in (0, 4):
        codes, log_probs = search(model, params, 60, prompts=[[]], start_token=start)
        own = bigram_log_probs(params, start, codes[0], sid_offsets(SIZES))
        np.testing.assert_allclose(log_probs[0], own, rtol=1e-5)


def test_a_fresh_trie_of_the_same_shape_does_not_compile_again():
    model, params = random_bigram((2, 2))
    search(model, params, 2, np.array([[0, 0], [1, 1]]), (2, 2))
    compiled = beam_search._cache_size()
    codes, _ = search(model, params, 2, np.array([[0, 1], [1, 0]]), (2, 2))
    assert beam_search._cache_size() == compiled, "the trie must be an argument of the program, not part of it"
    assert {tuple(sid) for sid in codes[0].tolist()} == {(0, 1), (1, 0)}


@pytest.mark.parametrize("scores", ["model", "renormalised"])
def test_scores_are_those_of_their_name(scores):
    model, params = random_bigram(SIZES)
    items = some_sids()
    for num_beams in (4, len(items)):
        codes, log_probs = search(model, params, num_beams, items, scores=scores, prompts=PROMPTS[:3])
        for row, prompt in enumerate(PROMPTS[:3]):
            assert_same_ranking(codes[row], log_probs[row], *bigram_beam(params, prompt[-1], num_beams, items, scores))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_renormalised_probabilities_of_all_items_sum_to_one_in_any_dtype(dtype):
    decoder, params = tiny_decoder(SIZES, dtype=dtype)
    items = some_sids()
    codes, log_probs = search(decoder, params, len(items), items, scores="renormalised")
    assert log_probs.dtype == np.float32
    np.testing.assert_allclose(np.exp(log_probs.astype(np.float64)).sum(axis=1), 1.0, rtol=1e-5)
    assert (codes >= 0).all()


@pytest.mark.parametrize("scores", ["model", "renormalised"])
def test_tokens_of_no_probability_are_never_found_and_make_no_nan(scores):
    model, params = random_bigram(SIZES)
    impossible = TEXT_TOKENS + np.array([1, 2])  # codes 1 and 2 of the first level
    dead_end = sid_offsets(SIZES)[0] + 3
    table = (
        params["table"]
        .at[:, impossible]
        .set(-jnp.inf)
        .at[dead_end, sid_offsets(SIZES)[1] : TEXT_TOKENS + 9]
        .set(-jnp.inf)
    )
    codes, log_probs = search(model, {"table": table}, 60, all_sids(SIZES), scores=scores)
    assert not np.isnan(log_probs).any()
    assert (codes[:, :15, 0] == 0).all() and (codes[:, 15:] == -1).all() and (log_probs[:, 15:] == -np.inf).all()


def test_other_scores_are_refused():
    model, params = random_bigram(SIZES)
    with pytest.raises(ValueError, match="'model', 'renormalised'.*got 'logits'"):
        search(model, params, 2, scores="logits")


def test_each_user_of_a_batch_is_searched_in_a_set_of_items_of_the_user_s_own():
    model, params = random_bigram(SIZES)
    items = some_sids()
    sets = [None, np.array([3]), np.arange(len(items)) % 2 == 0]
    trie = SidTrie.build(SortedSids.from_codes(items, SIZES), sets)
    chosen = [2, 0, 1, 0]
    codes, log_probs = search(model, params, 4, trie=trie, sets=jnp.array(chosen))
    for row, number in enumerate(chosen):
        own = items if sets[number] is None else items[sets[number]]
        last = (PROMPTS[row] or [0])[-1]
        expected = bigram_beam(params, last, 4, own, "model")
        assert_same_ranking(codes[row, : len(own)], log_probs[row, : len(own)], *expected)
        assert (codes[row, len(own) :] == -1).all()


def test_sharded_equals_single():
    """Users over the data axes, heads, MLP and vocabulary over the tensor axis."""
    sizes = (4, 5, 4)
    decoder, params = tiny_decoder(sizes, num_layers=2, num_kv_heads=2)
    items, prompts = some_sids(sizes=sizes), (PROMPTS * 2)
    expected = search(decoder, params, 4, items, sizes, prompts=prompts)
    mesh = MeshShape(data=2, fsdp=2, tensor=2).build()
    boxed = jax.eval_shape(
        decoder.init, jax.random.key(0), *[jnp.zeros((1, 2), jnp.int32)] * 2, jnp.ones((1, 2, 2), bool)
    )
    params = jax.device_put(params, parameter_shardings(boxed["params"], mesh))
    split = jax.tree.leaves(jax.tree.map(lambda x: not x.sharding.is_fully_replicated, params))
    assert sum(split) >= 4, "a test of sharding needs arrays that are split"
    tokens, lengths = jax.device_put(searches.padded(prompts), batch_sharding(mesh))
    trie = jax.device_put(SidTrie.from_codes(items, sizes), replicated(mesh))
    with logical_axes(mesh):
        found = beam_search(
            decoder,
            params,
            tokens,
            lengths,
            trie=trie,
            sid_offsets=sid_offsets(sizes),
            codebook_sizes=sizes,
            num_beams=4,
        )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)
