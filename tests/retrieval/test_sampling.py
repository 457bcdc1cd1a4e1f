"""Draws against the probabilities that they are drawn from, worked out over every item."""

import functools
import itertools

import jax
import numpy as np
import pytest
from scipy import stats
from searches import run
from tiny_decoder import random_bigram, sid_offsets

from plum_jax.retrieval.sampling import Sampling, sample

SIZES = (3, 4)
ITEMS = np.array([[0, 0], [0, 1], [0, 3], [1, 2], [2, 0], [2, 2]])
PROMPT = [3, 1]
DRAWS = 4000


def draw(users, seed=0, num_samples=1, **options):
    """`users` times the same prompt, each with its own key."""
    model, params = random_bigram(SIZES)
    keys = jax.random.split(jax.random.key(seed), users)
    return run(
        sample, model, params, [PROMPT] * users, keys, codes=ITEMS, sizes=SIZES, num_samples=num_samples, **options
    )


def step_probs(params, last, options, change):
    """{code: probability} of `options` after token `last`, by `change` of their logits' softmax."""
    logits = np.asarray(params["table"], np.float64)[last]
    codes = sorted(options)
    values = np.array([logits[token] for _, token in codes])
    return dict(zip([code for code, _ in codes], change(np.exp(values) / np.exp(values).sum()), strict=True))


def item_probs(change=lambda p: p):
    """float64 [N]: probability of each item, codes drawn among those that exist."""
    _, params = random_bigram(SIZES)
    first, second = sid_offsets(SIZES)
    top = step_probs(params, PROMPT[-1], {(c, first + c) for c in ITEMS[:, 0].tolist()}, change)
    probs = []
    for a, b in ITEMS.tolist():
        below = step_probs(params, first + a, {(c, second + c) for c in ITEMS[ITEMS[:, 0] == a, 1].tolist()}, change)
        probs.append(top[a] * below[b])
    return np.array(probs)


def counts(codes):
    return np.array([(codes == item).all(axis=-1).sum() for item in ITEMS])


def tempered(p, temperature):
    powers = p ** (1 / temperature)
    return powers / powers.sum()


def nucleus(p, top_p):
    order = np.argsort(-p)
    kept = order[: np.searchsorted(np.cumsum(p[order]), top_p) + 1]
    cut = np.zeros_like(p)
    cut[kept] = p[kept]
    return cut / cut.sum()


def best(p, k):
    return np.where(p >= np.sort(p)[::-1][min(k, len(p)) - 1], p, 0) / np.sort(p)[::-1][:k].sum()


@pytest.mark.parametrize(
    ("sampling", "change"),
    [
        (Sampling(), lambda p: p),
        (Sampling(temperature=2.0), functools.partial(tempered, temperature=2.0)),
        (Sampling(top_p=0.7), functools.partial(nucleus, top_p=0.7)),
        (Sampling(top_k=2), functools.partial(best, k=2)),
    ],
)
def test_items_are_drawn_as_often_as_they_are_probable(sampling, change):
    codes, log_probs = draw(DRAWS // 4, num_samples=4, sampling=sampling)
    probs = item_probs(change)
    drawn = counts(codes)
    assert drawn.sum() == DRAWS, "only items are drawn"
    assert (drawn[probs == 0] == 0).all(), "what is cut off is never drawn"
    real = probs > 0
    assert stats.chisquare(drawn[real], DRAWS * probs[real]).pvalue > 0.001
    number = (codes[:, :, None] == ITEMS).all(axis=-1).argmax(axis=-1)
    np.testing.assert_allclose(log_probs, np.log(probs[number]), rtol=1e-4, atol=1e-5)


def test_without_replacement_pairs_are_drawn_as_from_an_urn():
    codes, log_probs = draw(DRAWS, num_samples=2, sampling=Sampling(without_replacement=True))
    probs = item_probs()
    number = (codes[:, :, None] == ITEMS).all(axis=-1).argmax(axis=-1)
    np.testing.assert_allclose(log_probs, np.log(probs[number]), rtol=1e-4, atol=1e-5)
    pairs = list(itertools.permutations(range(len(ITEMS)), 2))
    drawn = np.array([(number == pair).all(axis=1).sum() for pair in pairs])
    assert drawn.sum() == DRAWS, "an item was drawn twice"
    expected = np.array([probs[a] * probs[b] / (1 - probs[a]) for a, b in pairs]) * DRAWS
    assert expected.min() > 5
    assert stats.chisquare(drawn, expected).pvalue > 0.001


def test_without_replacement_all_items_come_once_and_then_nothing():
    codes, log_probs = draw(20, num_samples=8, sampling=Sampling(without_replacement=True))
    assert (counts(codes) == 20).all()
    assert (codes[:, 6:] == -1).all() and (log_probs[:, 6:] == -np.inf).all()


def test_a_user_s_draws_depend_on_the_user_s_key_alone():
    codes, log_probs = draw(20, num_samples=4)
    model, params = random_bigram(SIZES)
    keys = jax.random.split(jax.random.key(0), 20)[np.array([7, 3])]
    prompts = [PROMPT, [1, *PROMPT]]
    again = run(sample, model, params, prompts, keys, codes=ITEMS, sizes=SIZES, num_samples=4)
    np.testing.assert_array_equal(again[0], codes[[7, 3]])
    np.testing.assert_allclose(again[1], log_probs[[7, 3]], rtol=1e-5)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": 0}])
def test_settings_that_draw_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="expected temperature > 0"):
        Sampling(**wrong)
