"""Windows: every event is learnt exactly once, with as much history as the window allows."""

import collections
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_jax.corpus.splits import Before
from tasks.histories import HistoryRenderer, HistoryTemplates, Slider, evaluation_windows
from tasks.templates import TemplateError


@given(st.integers(1, 8), st.data(), st.integers(0, 3), st.booleans(), st.integers(0, 30))
@settings(max_examples=200, deadline=None)
def test_each_event_is_learnt_exactly_once(history_length, data, minimum_history, every_prefix, num_events):
    stride = data.draw(st.integers(1, history_length)) if every_prefix else 1
    slider = Slider(history_length, stride, minimum_history, every_prefix)
    learnt: collections.Counter[int] = collections.Counter()
    for first, target, learnt_from in slider.bounds(num_events):
        assert 0 <= first <= target < num_events
        assert target - first == min(target, history_length)
        places = range(learnt_from, target + 1)
        assert all(place - first >= min(place, history_length - stride + 1) for place in places)
        learnt.update(places)
    assert learnt == collections.Counter(range(minimum_history, num_events))


@given(st.integers(1, 8), st.data(), st.integers(0, 2), st.booleans(), st.lists(st.integers(0, 12), max_size=4))
@settings(max_examples=200, deadline=None)
def test_of_a_history_that_comes_in_parts_each_event_is_learnt_once(length, data, minimum, every_prefix, parts):
    stride = data.draw(st.integers(1, length)) if every_prefix else 1
    slider = Slider(length, stride, minimum, every_prefix)
    learnt: collections.Counter[int] = collections.Counter()
    before = 0
    for part in parts:
        for first, target, learnt_from in slider.bounds(before + part, before):
            assert target - first == min(target, length)  # with what was learnt before as its history
            learnt.update(range(learnt_from, target + 1))
        before += part
    assert learnt == collections.Counter(range(minimum, before))


def test_windows_of_a_day_are_those_of_its_events(world):
    # As below, but the first three events of the corpus were learnt before: 0, 1 and 2, of the first user.
    events = np.arange(world.split.corpus.num_events) < 3
    before = Before(events, np.zeros(world.split.corpus.num_items, bool))
    (windows,) = Slider(history_length=2, stride=1).windows(dataclasses.replace(world.split, before=before), "a test")
    assert windows.target_event.tolist() == [3, 7, 11]
    assert windows.history_events.tolist() == [1, 2, 6, 10]
    assert not windows.learnt.any()
    assert Slider(2, 1).count(dataclasses.replace(world.split, before=before), "a test") == 3


def test_windows_by_hand(world):
    # The first user's training events are rows 0..3, the second's 6..7; the third user has two events, both train.
    (windows,) = Slider(history_length=2, stride=1).windows(world.split, "a test")
    assert windows.user.tolist() == [0, 0, 1, 2]
    assert windows.target_event.tolist() == [3, 2, 7, 11]
    assert windows.lengths.tolist() == [2, 2, 1, 1]
    assert windows.history_events.tolist() == [1, 2, 0, 1, 6, 10]
    assert windows.learnt.tolist() == [False, False, False, True, False, False]
    assert Slider(2, 1).count(world.split, "a test") == 4


def test_evaluation_windows_are_the_newest_events(world):
    evaluation = world.split.evaluation("test")
    (windows,) = evaluation_windows(evaluation, 3)
    assert windows.user.tolist() == [0, 1]
    assert windows.target_event.tolist() == [5, 9]
    assert windows.history_events.tolist() == [2, 3, 4, 6, 7, 8]
    assert windows.lengths.tolist() == [3, 3]


def test_errors(world):
    with pytest.raises(ValueError, match="1 <= stride <= history_length"):
        Slider(4, 5)
    for layout in ("{target} {history}", "{history}", "{target}{target}"):
        texts = HistoryTemplates(layout, "{sid}", "{sid}", "", "")
        with pytest.raises(TemplateError, match="layout template of task x.*must end with {target}, once"):
            HistoryRenderer(texts, world.split, world.table, world.vocabulary, "x")
    with pytest.raises(TemplateError, match="context template of task x.*no field 'rating'"):
        HistoryRenderer(
            HistoryTemplates("{target}", "", "{sid}", "", "{rating}"), world.split, world.table, world.vocabulary, "x"
        )


def test_an_empty_history_has_no_context_video(world):
    texts = HistoryTemplates("{context} <history> {history} {target}", "{sid}", "{sid}", "", "{device} {sid} {title}")
    renderer = HistoryRenderer(texts, world.split, world.table, world.vocabulary, "x")
    (windows,) = evaluation_windows(world.split.evaluation("test"), 0)
    assert windows.lengths.tolist() == [0, 0]
    prompt, _ = renderer.prompt(windows, np.zeros(0))
    assert [world.vocabulary.decode(row) for row in prompt.rows()] == ["WEB <history>", "ANDROID <history>"]
