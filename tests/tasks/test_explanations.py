"""Explanations: the named item of the history is the one that shares most, and what is shared is true."""

import dataclasses

import numpy as np
import pytest
from rendered import records, sids

from tasks.explanations import Explanations, ExplanationWriter
from tasks.histories import evaluation_windows
from tasks.item_attributes import ItemAttributeError, SharedAttributes, attributes
from tasks.templates import TemplateError

# Topics: 0 music; 1 dance, music; 2 music; 3 none; 4 chill, music (and the ID of 3); 5 weather.
HISTORIES = [[0, 1, 2, 5, 1, 0, 2, 3, 3], [5, 1, 0, 5, 2, 2], [5, 0, 5, 5]]
TASK = Explanations(fields=("topics",), history_length=3)


def test_a_rare_value_says_more_and_the_newest_of_equals_is_named(world):
    shared = SharedAttributes.of(world.corpus, ("topics",))
    assert shared.strength(np.array([1, 1, 5]), np.array([0, 1, 0])).tolist() == pytest.approx(
        [-np.log(4 / 6), -np.log(4 / 6) - np.log(1 / 6), 0.0]
    )
    places = shared.nearest(np.array([1, 1, 5, 3, 2]), np.array([1, 0, 4, 0, 2, 0, 1, 0, 1]), np.array([2, 3, 1, 1, 2]))
    # Of user 0's item 1 shares dance too; of user 1's all share music alone; nothing of weather, nothing of nothing.
    assert places.tolist() == [0, 2, -1, -1, 1]
    assert shared.in_common(1, 4) == ["music"] and shared.in_common(1, 1) == ["dance", "music"]


def test_a_window_reads_history_target_reason_and_what_both_have(make_world):
    world = make_world(HISTORIES)
    (task,) = TASK.tasks(world.split, world.table, world.vocabulary, 64)
    words, topics = world.vocabulary, world.corpus.items["topics"].to_list()
    expected = []
    for history in HISTORIES:
        train, target = history[:-2], len(history) - 3
        while target >= 1:
            past = train[max(0, target - 3) : target]
            both = [set(topics[item]) & set(topics[train[target]]) for item in past]
            worth = [sum(-np.log(sum(v in t for t in topics) / 6) for v in values) for values in both]
            if max(worth) > 0:
                place = max(range(len(past)), key=lambda at: (round(worth[at], 9), at))
                prompt = [words.control_id("<history>"), *sids(world, *past), words.control_id("<target>")]
                prompt += [*sids(world, train[target]), *words.encode("because of")]
                told = [*sids(world, past[place]), *words.encode(":"), *words.encode(", ".join(sorted(both[place])))]
                told.append(words.eos_id)
                expected.append((prompt + told, [0.0] * len(prompt) + [1.0] * len(told)))
            target -= 1
    assert records(task) == expected and len(expected) > 5


def test_a_prompt_is_the_beginning_of_an_explanation_of_any_item(make_world):
    world = make_world(HISTORIES)
    writer = ExplanationWriter(TASK, world.split, world.table, world.vocabulary)
    (windows,) = evaluation_windows(world.split.evaluation("test"), 3)
    (first, *_) = writer.prompts(windows, np.array([4, 1, 2])).rows()
    words = world.vocabulary
    past = [words.control_id("<history>"), *sids(world, 0, 2, 3), words.control_id("<target>")]
    assert first.tolist() == [*past, *sids(world, 4), *words.encode("because of")]
    assert writer.behind_reason == words.encode(":")


def test_a_decade_is_a_span_of_a_column_of_numbers(world):
    numbered = world.corpus.items.with_columns(years := world.corpus.items["title"].is_null().cast(int).alias("year"))
    numbered = numbered.with_columns(years * 13 + 1987)
    corpus = dataclasses.replace(world.corpus, items=numbered)
    names, has = attributes(corpus, "year:10")
    assert names == ["1980s", "2000s"] and has[:, 1].tolist() == [False, False, False, True, False, False]
    for field, message in (
        ("year:ten", "a whole span above 0"),
        ("topics:10", "single numbers"),
        ("title:10", "such as"),
    ):
        with pytest.raises(ItemAttributeError, match=message):
            attributes(corpus, field)


def test_what_cannot_be_explained_is_one_error(world):
    with pytest.raises(ItemAttributeError, match="have no field 'genre'; valid are"):
        dataclasses.replace(TASK, fields=("genre",)).tasks(world.split, world.table, world.vocabulary, 64)
    with pytest.raises(TemplateError, match="in this order, and end with the last"):
        wrong = dataclasses.replace(TASK, layout="{target} {history} {reason}: {shared}")
        wrong.tasks(world.split, world.table, world.vocabulary, 64)
