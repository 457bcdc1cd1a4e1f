"""Diverse beam search against the paper's algorithm as loops, and against an example by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from searches import SIZES, all_sids, run, search, some_sids
from tiny_decoder import TEXT_TOKENS, bigram_log_probs, random_bigram, sid_offsets

from plum_jax.retrieval.diverse_beams import distinct, diverse_beam_search

PROMPTS = [[3, 1], [5], [2, 2, 6]]


def diverse(model, params, num_beams, num_groups, penalty, codes=None, sizes=SIZES, prompts=PROMPTS):
    options = {"num_beams": num_beams, "num_groups": num_groups, "penalty": penalty}
    return run(diverse_beam_search, model, params, prompts, codes=codes, sizes=sizes, **options)


def groups_in_python(params, last, items, width, num_groups, penalty):
    """Algorithm 1 of the paper: level by level, group by group."""
    groups = [[()] for _ in range(num_groups)]
    for level in range(items.shape[1]):
        taken = []
        for number, beams in enumerate(groups):
            options = sorted({tuple(item[: level + 1]) for item in items.tolist() if tuple(item[:level]) in beams})
            log_probs = bigram_log_probs(params, last, np.array(options), sid_offsets(SIZES)[: level + 1])
            scores = [p - penalty * taken.count(option[-1]) for p, option in zip(log_probs, options, strict=True)]
            best = np.argsort(-np.array(scores), kind="stable")[:width]
            groups[number] = [options[i] for i in best]
            taken += [option[-1] for option in groups[number]]
    return groups


@pytest.mark.parametrize("constrained", [True, False])
def test_groups_are_those_of_the_paper(constrained):
    model, params = random_bigram(SIZES, seed=2)
    items = some_sids() if constrained else all_sids(SIZES)
    codes, log_probs = diverse(model, params, 6, 3, 0.7, items if constrained else None)
    for row, prompt in enumerate(PROMPTS):
        expected = groups_in_python(params, prompt[-1], items, 2, 3, 0.7)
        for group in range(3):
            assert [tuple(sid) for sid in codes[row, group].tolist()] == expected[group], f"{row=} {group=}"
            own = bigram_log_probs(params, prompt[-1], codes[row, group], sid_offsets(SIZES))
            np.testing.assert_allclose(log_probs[row, group], own, rtol=1e-5, err_msg="without penalties")


def test_one_group_is_beam_search():
    model, params = random_bigram(SIZES, seed=3)
    items = some_sids()
    codes, log_probs = diverse(model, params, 4, 1, 5.0, items)
    expected = search(model, params, 4, items, prompts=PROMPTS)
    np.testing.assert_array_equal(codes[:, 0], expected[0])
    np.testing.assert_array_equal(log_probs[:, 0], expected[1])


@pytest.mark.parametrize(("penalty", "second"), [(0.4, 0), (0.6, 1)])  # ln .5 - ln .3 = .51
def test_the_second_group_leaves_a_code_where_the_penalty_is_worth_it(penalty, second):
    model, params = random_bigram((3,))
    table = jnp.full_like(params["table"], -30.0).at[:, TEXT_TOKENS:].set(jnp.log(jnp.array([0.5, 0.3, 0.2])))
    codes, log_probs = diverse(model, {"table": table}, 2, 2, penalty, sizes=(3,))
    assert codes[0, :, 0, 0].tolist() == [0, second]
    np.testing.assert_allclose(np.exp(log_probs[0, :, 0]), [0.5, [0.5, 0.3][second]], rtol=1e-5)


def test_groups_that_do_not_divide_the_beams_are_refused():
    model, params = random_bigram(SIZES)
    with pytest.raises(ValueError, match="num_beams=6 num_groups=4"):
        diverse(model, params, 6, 4, 1.0)


def test_a_sid_that_two_groups_found_is_kept_once_and_lists_are_sorted():
    codes = np.array([[[1, 2], [0, 3], [1, 2], [-1, -1]]], np.int32)
    log_probs = np.array([[-2.0, -1.0, -2.0, -np.inf]], np.float32)
    kept, scores = distinct(codes, log_probs)
    assert kept.tolist() == [[[0, 3], [1, 2], [-1, -1], [-1, -1]]]
    assert scores.tolist() == [[-1.0, -2.0, -np.inf, -np.inf]]
