"""The simulator: what it draws follows the distribution it claims, and nothing beats the best possible recall."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources.simulator import Simulator


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator(num_users=20_000, num_items=300, mean_history=6, branching=(3, 4), seed=3)


def last_items(corpus) -> np.ndarray:
    return corpus.events["item"].to_numpy()[corpus.history_offsets[1:] - 1]


def topic_of_item(corpus) -> np.ndarray:
    names = corpus.items["topics"].list.get(-1)
    return np.unique(names.to_numpy(), return_inverse=True)[1]


@pytest.mark.parametrize("k", [1, 5, 20])
def test_oracle_reaches_the_best_possible_recall(simulator, k):
    hits = (simulator.best_items(k) == last_items(simulator.read())[:, None]).any(axis=1)
    error = hits.std() / np.sqrt(len(hits))
    assert abs(hits.mean() - simulator.best_possible_recall(k)) < 4 * error


def test_the_true_distribution_has_the_best_possible_loss(simulator):
    """Its -log probabilities of the drawn last items average to the claim; those of another user's state are worse."""
    topic, branch = simulator._last_states[0][simulator._last_states[1]].T
    target = last_items(simulator.read())

    def surprise(topics, branches):
        pairs = zip(topics, branches, target, strict=True)
        return np.array([-np.log(simulator.next_item_probabilities(t, b)[item]) for t, b, item in pairs])

    own, other = surprise(topic, branch), surprise(np.roll(topic, 1), np.roll(branch, 1))
    error = own.std() / np.sqrt(len(own))
    assert abs(own.mean() - simulator.best_possible_loss()) < 4 * error
    assert other.mean() > simulator.best_possible_loss() + 4 * error


def test_no_other_ranking_beats_it(simulator):
    """Rankings by popularity, by the last topic alone (as the tree names it), and the oracle's of another user."""
    k, corpus = 10, simulator.read()
    target = last_items(corpus)
    before_last = corpus.events["item"].to_numpy()[corpus.history_offsets[1:] - 2]
    popularity = np.bincount(corpus.events["item"].to_numpy(), minlength=corpus.num_items)
    topic = topic_of_item(corpus)
    same_topic = np.stack(
        [np.argsort(-(popularity + 1e9 * (topic == t)), kind="stable")[:k] for t in range(topic.max() + 1)]
    )
    rankings = {
        "popularity": np.tile(np.argsort(-popularity)[:k], (corpus.num_users, 1)),
        "topic": same_topic[topic[before_last]],
        "another user": np.roll(simulator.best_items(k), 1, axis=0),
    }
    best = simulator.best_possible_recall(k)
    for name, ranking in rankings.items():
        hits = (ranking == target[:, None]).any(axis=1)
        assert hits.mean() < best - 3 * hits.std() / np.sqrt(len(hits)), name


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 99), st.sampled_from([(2,), (3, 2), (2, 2, 3)]), st.sampled_from([0.0, 0.7, 1.3]), st.integers(1, 40)
)
def test_best_equals_brute_force_over_all_items(seed, branching, exponent, k):
    simulator = Simulator(
        num_users=8, num_items=40, mean_history=5, branching=branching, zipf_exponent=exponent, seed=seed
    )
    corpus = simulator.read()
    favourites = corpus.users["favourite"].to_list()
    before_last = corpus.events["item"].to_numpy()[corpus.history_offsets[1:] - 2]
    branches = [[words[0] for words in simulator._words[0]].index(name) for name in favourites]
    sums = []
    for user in range(corpus.num_users):
        probabilities = simulator.next_item_probabilities(simulator._topic_of_item[before_last[user]], branches[user])
        assert probabilities.sum() == pytest.approx(1) and probabilities.min() >= 0
        sums.append(np.sort(probabilities)[::-1][:k].sum())
        assert probabilities[simulator.best_items(k)[user]].sum() == pytest.approx(sums[-1])
    assert simulator.best_possible_recall(k) == pytest.approx(np.mean(sums))


def test_draws_follow_the_claimed_distribution(simulator):
    """Chi-square of the items after every pair (topic, branch) is as large as its degrees of freedom."""
    corpus = simulator.read()
    item, user = corpus.events["item"].to_numpy(), corpus.events["user"].to_numpy()
    follows = np.flatnonzero(np.diff(user) == 0)
    topic = simulator._topic_of_item[item[follows]]
    branch = simulator._favourite[user[follows]]
    statistic = freedom = 0.0
    for pair in np.unique(np.stack([topic, branch], axis=1), axis=0):
        next_items = item[follows + 1][(topic == pair[0]) & (branch == pair[1])]
        expected = simulator.next_item_probabilities(*pair) * len(next_items)
        often = expected > 5
        seen = np.bincount(next_items, minlength=corpus.num_items)
        statistic += ((seen - expected)[often] ** 2 / expected[often]).sum()
        freedom += often.sum()
    assert freedom > 500
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def test_corpus_has_what_was_asked_for(simulator):
    corpus = simulator.read()
    lengths = np.diff(corpus.history_offsets)
    assert (corpus.num_users, corpus.num_items) == (20_000, 300)
    assert lengths.min() == 5 and lengths.mean() == pytest.approx(6, abs=0.05)
    assert corpus.items["topics"].list.len().unique().to_list() == [2]
    assert corpus.items["topics"].list.get(-1).n_unique() == 12
    first_word = corpus.items["title"].str.split(" ").list.get(0)
    words_of_branch = {}
    for branch, word in zip(corpus.items["topics"].list.get(0), first_word, strict=True):
        words_of_branch.setdefault(word, set()).add(branch)
    assert all(len(branches) == 1 for branches in words_of_branch.values())  # titles tell the topics
    assert corpus.events["watch_ratio"].is_between(0, 1).all() and (corpus.events["watch_time"] > 0).all()


def test_seed_decides():
    small = {"num_users": 20, "num_items": 64}
    assert Simulator(**small).read().fingerprint == Simulator(**small).read().fingerprint
    assert Simulator(**small).read().fingerprint != Simulator(**small, seed=1).read().fingerprint


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"num_items": 63}, "num_items must be at least the number of topics, 64, got 63"),
        ({"branching": (4, 1)}, "2 children or more"),
        ({"stay": 0.9}, "chances that sum to 1 at most"),
        ({"mean_history": 4.0}, "mean_history >= minimum_history >= 2, got 2000, 4.0, 5"),
    ],
)
def test_impossible_simulations(fields, message):
    with pytest.raises(CorpusError, match=message):
        Simulator(**fields)


def test_k_beyond_the_items():
    with pytest.raises(CorpusError, match="k must be between 1 and num_items, 1000, got 1001"):
        Simulator(num_users=5).best_possible_recall(1001)
