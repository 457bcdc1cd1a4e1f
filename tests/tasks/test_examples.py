"""Examples of fine-tuning: drawn by reward, and with several targets of a history."""

import collections
import dataclasses

import numpy as np
import pytest
from rendered import records, sids

from tasks.retrieval import Retrieval, Reward


def test_examples_are_drawn_by_reward(make_world):
    """Each example comes floor or ceiling of reward / mean reward times, as many in all, weights all 1."""
    rng = np.random.default_rng(0)
    world = make_world([rng.integers(0, 6, 12).tolist() for _ in range(20)])
    reward = Reward("rating", scale=0.2)
    plain = Retrieval(history_weight=0.0, reward=reward)
    drawn = dataclasses.replace(plain, reward_use="sampling", seed=3)
    before, after = (records(task.task(world.split, world.table, world.vocabulary)) for task in (plain, drawn))
    assert abs(len(after) - len(before)) <= 1 and all(set(weights[-4:-1]) == {1.0} for _, weights in after)
    # A reward is the weight that the example has where it is not drawn; equal sequences share their draws.
    rewards = collections.Counter()
    for tokens, weights in before:
        rewards[tuple(tokens)] += weights[-2]
    mean = sum(rewards.values()) / len(before)
    times = collections.Counter(tuple(tokens) for tokens, _ in after)
    several = collections.Counter(tuple(tokens) for tokens, _ in before)
    assert all(abs(times[tokens] - reward / mean) < several[tokens] for tokens, reward in rewards.items())
    assert max(times.values()) > 1 and len(times) < len(rewards)
    with pytest.raises(ValueError, match="all 180 targets have reward 0"):
        dataclasses.replace(drawn, reward=Reward(scale=0.0)).task(world.split, world.table, world.vocabulary)
    with pytest.raises(ValueError, match="set history_weight to 0, got 1.0"):
        Retrieval(reward_use="sampling")
    with pytest.raises(ValueError, match="expected a reward_use of 'weight' or 'sampling', got 'draw'"):
        Retrieval(reward_use="draw")


def test_a_history_may_have_several_targets(world):
    """Training events of the users: [0 1 2 3], [5 4], [1 2]."""
    task = Retrieval(history_weight=0.0, targets=2).task(world.split, world.table, world.vocabulary)
    start = world.vocabulary.control_id("<history>")
    expected = [([0, 1, 2], 3), ([0, 1], 2), ([0], 1), ([0, 1], 3), ([0], 2), ([5], 4), ([1], 2)]
    wanted = [[start, *sids(world, *history), *sids(world, target), 1] for history, target in expected]
    assert sorted(tokens for tokens, _ in records(task)) == sorted(wanted)
    # Where a window learns its history too, it does so once.
    once = records(Retrieval(targets=2).task(world.split, world.table, world.vocabulary))
    assert sum(sum(weights) for _, weights in once) == 3 * (3 + 1 + 1), "no further target in the newest windows"
    with pytest.raises(ValueError, match="expected 1 or more targets after a history, got 0"):
        Retrieval(targets=0)
