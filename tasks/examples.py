"""Which examples there are beside one a window (later targets of the same history, draws by reward: PLUM §5), and what
of an answer is learnt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from plum_jax import ragged
from plum_jax.corpus.splits import TRAIN, Split
from tasks.histories import Windows


def with_later_targets(windows: Iterator[Windows], split: Split, targets: int) -> Iterator[Windows]:
    """Windows, and after each lot the same histories with the training event after the next as target, and so on.

    What users watch after their next watch is as true an answer to the same prompt. History items are learnt in the
    first of the examples alone.

    Args:
      windows: of training events.
      split: whose events they are.
      targets: events after a history that are its target, one after the other; 1: the next alone.
    """
    user, train = split.corpus.events["user"].to_numpy(), split.fold == TRAIN
    for some in windows:
        yield some
        for later in range(1, targets):
            event = some.target_event + later
            there = event < len(user)
            there[there] = (user[event[there]] == some.user[there]) & train[event[there]]
            if there.any():
                moved = dataclasses.replace(some, target_event=event, learnt=np.zeros_like(some.learnt))
                yield moved.take(np.flatnonzero(there))


def drawn_by_reward(make_windows: Callable[[], Iterator[Windows]], reward: np.ndarray, seed: int) -> Iterator[Windows]:
    """As many examples as there are windows, each as often as its target's reward is of the mean reward.

    Systematic resampling: an example of reward r comes floor or ceiling of r / mean times, and no other number.

    Args:
      make_windows: gives all windows, afresh at each call.
      reward: float [E], by row of `corpus.events`.
      seed: of the one number that is drawn.

    Raises:
      ValueError: no target has a reward.
    """
    total, count = 0.0, 0
    for some in make_windows():
        total += float(reward[some.target_event].sum(dtype=np.float64))
        count += len(some)
    if count and not total:
        raise ValueError(f"examples are drawn by reward, but all {count} targets have reward 0: check Reward")
    before, start = 0.0, np.random.default_rng(seed).random()
    for some in make_windows():
        until = before + np.cumsum(reward[some.target_event].astype(np.float64) * (count / total))
        marks = np.floor(np.concatenate([[before], until]) + start)
        before = until[-1]
        yield some.take(np.repeat(np.arange(len(some)), np.diff(marks).astype(np.int64)))


def answered(prompt: ragged.Ragged, told: ragged.Ragged) -> tuple[ragged.Ragged, ragged.Ragged]:
    """Sequences of a prompt and what is told after it, row by row, and loss weights: 0 on the prompt, 1 on the rest."""
    weights = [
        ragged.Ragged(np.full(len(part.values), weight, np.float32), part.lengths)
        for part, weight in ((prompt, 0.0), (told, 1.0))
    ]
    return ragged.join([prompt, told]), ragged.join(weights)
