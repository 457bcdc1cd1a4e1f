"""Reasons by removal: a loss is the difference of two passes, with the event and without it."""

import dataclasses

import numpy as np
import pytest

from gin import config as gin
from plum_jax import run
from plum_jax.jobs.explain import level_scores
from plum_jax.systems.generative.reasons import Reasons, without_each
from tasks.histories import Windows
from tasks.item_attributes import ItemAttributeError


def test_each_event_is_left_out_once():
    windows = Windows(
        user=np.array([0, 1, 2], np.int32),
        target_event=np.array([3, 5, 9]),
        history_events=np.array([0, 1, 2, 4, 7, 8]),
        lengths=np.array([3, 1, 2]),
        learnt=np.array([True, False, False, False, True, False]),
    )
    found = without_each(windows)
    assert found.lengths.tolist() == [2, 2, 2, 0, 1, 1] and found.user.tolist() == [0, 0, 0, 1, 2, 2]
    assert found.history_events.tolist() == [1, 2, 0, 2, 0, 1, 8, 7]
    assert found.learnt.tolist() == [False, False, True, False, True, False, False, True]


def test_a_loss_is_that_of_the_prompt_without_the_event(finished):
    run.configure([f"{finished[0]}/config.gin"], [])
    try:
        stages = gin.query_parameter("%PIPELINE").scoped_configurable_fn().stages(finished[0])
    finally:
        gin.clear_config()
    reasons = Reasons(stages, stages.params)
    users = stages.split.evaluation("test").take(np.array([2, 5]))
    (windows,) = reasons.windows(users)
    items = np.array([1, 4])
    drops = np.split(reasons.drops(windows, items), np.cumsum(windows.lengths)[:-1])
    prompts = stages.prompts("test")["prompt"].to_list()
    sid_tokens = stages.vocabulary.encode_sid(stages.table.codes)
    for row, user in enumerate((2, 5)):
        history = users.history(row)[-stages.config.retrieval_task.history_length :]
        prompt, codes = prompts[user], stages.table.codes[items[row : row + 1]]
        whole = level_scores(stages, stages.params, prompt, codes).sum()
        before = prompt.index(sid_tokens[history[0]][0])
        levels = sid_tokens.shape[1]
        for place in (0, len(history) - 1):
            without = prompt[: before + levels * place] + prompt[before + levels * (place + 1) :]
            assert drops[row][place] == pytest.approx(
                whole - level_scores(stages, stages.params, without, codes).sum(), abs=2e-4
            )
    with pytest.raises(ItemAttributeError, match="was not trained to explain"):
        reasons.said(windows, items)
    assert reasons.writer.shared.in_common(0, 0) == [stages.corpus.items["title"][0]]
    assert dataclasses.replace(reasons, cpt=False).task is None
