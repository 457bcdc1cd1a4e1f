"""Requests in words: true of the target, between history and target, and only where one was drawn."""

import numpy as np
import polars as pl
import pytest
from rendered import records

from tasks.item_attributes import attributes, require_value
from tasks.requests import Requests, with_request
from tasks.retrieval import Retrieval


def test_what_is_asked_is_true_of_the_target(world):
    names, has = attributes(world.corpus, "topics")
    assert names == ["chill", "dance", "music", "weather"] and has[4].tolist() == [True, False, True, False]
    assert not has[3].any()  # an empty list
    requests = Requests(("topics",), share=0.7, refused=0.4)
    items = np.tile(np.arange(6), 1200)
    # 1 is dance and music, 5 weather; nobody knows what was before the last ones.
    previous = np.repeat([1, 5, -1], 2400)
    texts = requests.draw(requests.values(world.corpus), items, previous, np.random.default_rng(0))
    for item, before, text in zip(items.tolist(), previous.tolist(), texts, strict=True):
        if text:
            kind, _, value = text.partition(" ")
            assert has[item, names.index(value)] == (kind == "more")
            assert kind == "more" or has[before, names.index(value)]
            assert kind == "more" or before >= 0
        assert not text or item != 3
    # After music and dance, who takes weather may have refused either, and who takes music and dance nothing.
    for target, before, told in (
        (5, 1, {"", "more weather", "not dance", "not music"}),
        (1, 1, {"", "more dance", "more music"}),
    ):
        assert {t for i, p, t in zip(items, previous, texts, strict=True) if (i, p) == (target, before)} == told
    of_weather = [t for i, p, t in zip(items, previous, texts, strict=True) if (i, p) == (5, 1)]
    assert abs(np.mean([bool(t) for t in of_weather]) - 0.7) < 0.15
    wanted = [t for i, t in zip(items, texts, strict=True) if i == 1 and t.startswith("more")]
    assert np.mean([t == "more dance" for t in wanted]) == pytest.approx(
        np.log(6) / (np.log(6) + np.log(6 / 4)), abs=0.05
    )


def test_a_request_stands_between_history_and_target_and_has_no_weight(make_world):
    world = make_world([[0, 1, 2, 5, 1, 0, 2]] * 12)
    plain = Retrieval(history_length=3, stride=1, history_weight=0.0)
    asking = Retrieval(history_length=3, stride=1, history_weight=0.0, requests=Requests(("topics",)))
    arguments = (world.split, world.table, world.vocabulary)
    words, levels = world.vocabulary, 3
    told = 0
    for (without, zeros), (tokens, weights) in zip(
        records(plain.task(*arguments)), records(asking.task(*arguments)), strict=True
    ):
        at = len(without) - levels - 1  # the target and EOS
        request = tokens[at : len(tokens) - levels - 1]
        assert [*without[:at], *request, *without[at:]] == tokens
        assert [*zeros[:at], *[0.0] * len(request), *zeros[at:]] == weights
        told += bool(request)
        if request:
            assert words.decode(request).split()[0] in ("more", "not")
    assert told > 0
    prompts = asking.prompts(world.split, "test", world.table, world.vocabulary)
    assert prompts.equals(plain.prompts(world.split, "test", world.table, world.vocabulary))
    more = words.encode("more music")
    asked = with_request(prompts, more)
    assert asked["prompt"][3].to_list() == [*prompts["prompt"][3].to_list(), *more]
    assert asked["prompt"].dtype == pl.List(pl.Int32)


def test_what_no_item_has_is_one_error(world):
    for make, message in (
        (lambda: attributes(world.corpus, "genre"), "have no field 'genre'; valid are item_id"),
        (
            lambda: require_value(["dance", "music"], "topics", "musik"),
            "no item has 'musik' as topics: did you mean",
        ),
        (lambda: Requests(share=1.0), "0 < share < 1"),
        (lambda: Requests(()), "expected fields"),
    ):
        with pytest.raises(ValueError) as error:
            make()
        assert message in str(error.value)
