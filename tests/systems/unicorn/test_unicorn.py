"""Planted rules are learnt, by one model for three tasks; runs go on; requests are answered, or it is said why not."""

import dataclasses

import jax
import numpy as np
import planted_shop
import pytest

from plum_jax.corpus.features import TextEmbedding
from plum_jax.corpus.splits import FOLDS, LeaveOneOut
from plum_jax.queries.category_paths import CategoryQueries
from plum_jax.stages import Data
from plum_jax.systems.unicorn import system
from plum_jax.systems.unicorn.examples import HOMEPAGE, SEARCH, SIMILAR
from plum_jax.systems.unicorn.requests import Request, answers

FULL = planted_shop.unicorn(personalisation="full", vectors=planted_shop.Tastes(), fields=("country",))


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return planted_shop.stages(tmp_path_factory.mktemp("unicorn"))


@pytest.fixture(scope="module")
def fitted(stages):
    return FULL.fit(stages, "joint")


def share_found(fitted, task, k):
    users, ranking = fitted.rank_task(task, "test", k)
    return float((ranking.lists.items == users.target_item[:, None]).any(axis=1).mean())


def test_one_model_knows_the_rules_of_three_tasks(fitted):
    assert share_found(fitted, HOMEPAGE, 10) > 0.9  # a user's colour leaves 10 of 40 items; without, .25
    assert share_found(fitted, SEARCH, 1) > 0.6  # a kind and a colour leave one, though the query is new
    assert share_found(fitted, SIMILAR, 2) > 0.5  # the last step is to the next kind of the same colour
    facts = fitted.facts
    assert facts["examples"] == {"search": facts["examples"]["search"], "similar": 600, "homepage": 600}
    assert facts["parameters"] > facts["non_embedding_parameters"] > 0


def test_requests_are_answered_as_examples_are(fitted):
    data, corpus = fitted.data, fitted.data.split.corpus
    users, ranking = fitted.rank_task(SIMILAR, "test", 5, 3)
    user_ids = corpus.users["user_id"]
    asked = [
        Request(
            SIMILAR,
            source=f"i{users.history(row)[-1]}",
            user=user_ids[int(user)],
            fields={"country": corpus.users["country"][int(user)]},
        )
        for row, user in enumerate(users.user)
    ]
    found = answers(fitted, asked, 5)
    assert [[item for item, _ in one] for one in found] == [[f"i{n}" for n in row] for row in ranking.lists.items]
    assert all(np.diff([logit for _, logit in one]).max() <= 0 for one in found)
    held_out = [text for text, fold in zip(data.queries.texts, data.queries.fold, strict=True) if fold == FOLDS["test"]]
    kind = held_out[0].split()[1]
    red, nobody = answers(fitted, [Request(SEARCH, f"a {kind}", user="u0"), Request(HOMEPAGE)], 4)
    titles = dict(corpus.items.select("item_id", "title").iter_rows())
    assert titles[red[0][0]] == f"red {kind}" and len(nobody) == 4


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("feed"), "unknown task 'feed': expected one that was trained, search, similar, homepage"),
        (Request(SEARCH), "expected a query with at least one word that is no stop word, got ''"),
        (Request(SEARCH, "the of"), "at least one word that is no stop word, got 'the of'"),
        (Request(SEARCH, "zither"), r"no word of the query 'zither' is known \(zither\): expected one of the"),
        (Request(SIMILAR), "source: expected the id of an item of the corpus, such as 'i0', got None"),
        (Request(HOMEPAGE, user="nobody"), "user: expected the id of a user of the corpus, such as 'u0', got 'nobody'"),
        (Request(HOMEPAGE, fields={"country": "x"}), r"field 'country': expected one of \['n', 's'\], got 'x'"),
    ],
)
def test_a_request_that_cannot_be_answered_is_one_error(fitted, request_, message):
    with pytest.raises(ValueError, match=message):
        answers(fitted, [request_], 3)


def test_settings_that_contradict_each_other_are_refused(stages, tmp_path):
    with pytest.raises(ValueError, match="unknown task 'feed'"):
        planted_shop.unicorn(tasks=("feed",))
    with pytest.raises(ValueError, match="a query would be known from the item it is to find; leave that field out"):
        planted_shop.unicorn(text_fields=("title", "path"))
    with pytest.raises(ValueError, match=r"personalisation to be one of \('none', 'cluster', 'full'\), got 'some'"):
        planted_shop.unicorn(personalisation="some")
    with pytest.raises(ValueError, match=r"names among \['country'\] of corpus 'planted shop', got \['rating'\]"):
        planted_shop.unicorn(fields=("rating",)).data(stages)
    told = Data(planted_shop.Planted(), LeaveOneOut(), [TextEmbedding()]).stages(tmp_path)
    with pytest.raises(ValueError, match="queries are made of 'path', which block 'text' of FEATURES has read"):
        planted_shop.unicorn(blocks=("text",)).data(told)
    with pytest.raises(ValueError, match="expected blocks of the run's FEATURES .text., got 'co_watch'"):
        planted_shop.unicorn(blocks=("co_watch",)).data(told)
    with pytest.raises(ValueError, match="no text field 'colour'"):
        planted_shop.unicorn(queries=CategoryQueries("colour")).data(stages)


@pytest.mark.slow
def test_a_killed_training_goes_on_as_the_one_that_was_not(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    training = dataclasses.replace(planted_shop.TRAINING, steps=9, checkpoint_period=2, evaluation_period=3)
    model = planted_shop.unicorn(training=training, batch_size=16, curve_examples=4)
    whole = model.fit(planted_shop.stages(tmp_path / "whole"), "joint")
    curve, calls = system.Unicorn._curve, []

    def dying(self, fitted):
        evaluate = curve(self, fitted)

        def evaluate_or_die(params):
            calls.append(1)
            if len(calls) == 2:
                raise Killed
            return evaluate(params)

        return evaluate_or_die

    monkeypatch.setattr(system.Unicorn, "_curve", dying)
    with pytest.raises(Killed):
        model.fit(planted_shop.stages(tmp_path / "killed"), "joint")
    resumed = model.fit(planted_shop.stages(tmp_path / "killed"), "joint")
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    assert resumed.fingerprint == whole.fingerprint
