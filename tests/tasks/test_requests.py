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
    items = np.tile(np.arange(6), 300)
    texts = requests.draw(world.corpus, items, np.random.default_rng(0))
    for item, text in zip(items.tolist(), texts, strict=True):
        if text:
            kind, _, value = text.partition(" ")
            assert has[item, names.index(value)] == (kind == "more")
        assert not text or item != 3
    of_others = [text for item, text in zip(items, texts, strict=True) if item != 3]
    assert abs(np.mean([bool(text) for text in of_others]) - 0.7) < 0.05
    assert abs(np.mean([text.startswith("not") for text in of_others if text]) - 0.4) < 0.06
    assert {text for item, text in zip(items, texts, strict=True) if item == 4} == {
        *("", "more chill", "more music", "not dance", "not weather"),
    }


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
