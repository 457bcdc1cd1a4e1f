"""An item-level model leaves its run: lists for all users, and an export whose answers are those of its beams."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from plum_jax.jobs import explain, serving
from plum_jax.retrieval.serving import export_serving
from plum_jax.retrieval.serving_loader import Server, ServingError
from plum_jax.retrieval.watch_next import after_each_item
from plum_jax.systems.popularity import Popularity


def test_lists_of_a_job_are_those_of_the_ranking(stages, fitted, data, system):
    systems = {"item_history": system, "popularity": Popularity()}
    serving.recommend(str(stages.directory), data, systems, "item_history", items_per_user=4, users_per_shard=70)
    test, names = stages.split.evaluation("test"), stages.corpus.items["item_id"].cast(pl.String).to_numpy()
    ranking = fitted.rank(test, 4)
    frame = pl.read_parquet(str(stages.directory / "recommendations" / "recommendations.parquet"))
    assert frame["item_id"].to_list() == names[ranking.lists.unseen].ravel().tolist()
    np.testing.assert_allclose(frame["score"].to_numpy(), np.asarray(ranking.scores).ravel(), rtol=1e-5)
    assert frame["rank"].to_list() == [1, 2, 3, 4] * len(test)

    # Another system is another table; scores are of lists without seen items.
    serving.recommend(str(stages.directory), data, systems, items_per_user=2, remove_seen=False)
    frame = pl.read_parquet(str(stages.directory / "recommendations" / "recommendations.parquet"))
    first = np.argsort(-stages.split.item_popularity, kind="stable")[:2]
    assert frame["item_id"].to_list() == names[first].tolist() * len(test)
    assert frame["score"].null_count() == len(frame)


def test_after_an_item_comes_what_a_user_who_took_it_alone_would_get(stages, fitted, data, system):
    serving.watch_next(str(stages.directory), data, {"item_history": system}, items_per_list=3)
    frame = pl.read_parquet(str(stages.directory / "watch_next" / "watch_next.parquet"))
    known, item = fitted.ranker.known, 7
    unknown = np.zeros((1, 1, len(known.events.sizes)), np.int32)
    one, mask = np.zeros((1, 1), np.int32), np.ones((1, 1, 1), bool)
    params = {"params": fitted.params}
    state = fitted.ranker.network.apply(params, known.items(np.array([[item]])), unknown, one, mask, method="states")
    alone = dataclasses.replace(fitted, ranker=dataclasses.replace(fitted.ranker, dense_share=1.0))
    dense = alone.ranker.vectors(fitted.params) @ np.asarray(state)[0, 0]
    dense[item] = -np.inf
    lists = alone.rank(after_each_item(48), 3).lists.unseen
    assert lists[item].tolist() == np.argsort(-dense, kind="stable")[:3].tolist()
    names = stages.corpus.items["item_id"].cast(pl.String).to_numpy()
    expected = fitted.rank(after_each_item(48), 3).lists.unseen
    assert frame["next_item_id"].to_list() == names[expected].ravel().tolist()


def test_an_explanation_adds_up_to_the_score(stages, fitted, data, system, capsys):
    name = stages.corpus.users["user_id"].cast(pl.String)[int(stages.split.evaluation("test").user[5])]
    explain.explain(str(stages.directory), data, {"item_history": system}, users=[name], items_per_user=4)
    (one,) = json.loads((stages.directory / "explanations.json").read_text())
    assert [len(item["by_level"]) for item in one["recommended"]] == [3] * 4
    for item in one["recommended"]:
        expected = 0.5 * item["among_all"] + 0.5 * sum(item["by_level"])
        assert item["score"] == pytest.approx(expected, abs=1e-4)
    assert "among all  by level" in capsys.readouterr().out
    with pytest.raises(ValueError, match="system 'popularity' says no more than its lists"):
        explain.explain(str(stages.directory), data, {"popularity": Popularity()})
    with pytest.raises(ValueError, match="expected ITEMS_PER_USER of at most 48, the number of beams, got 49"):
        explain.explain(str(stages.directory), data, {"item_history": system}, items_per_user=49)


def test_what_a_system_cannot_do_is_said(stages, data, system):
    systems = {"item_history": system, "popularity": Popularity()}
    run = str(stages.directory)
    with pytest.raises(ValueError, match="SYSTEM is 'sasrec', but the run has item_history, popularity"):
        serving.recommend(run, data, systems, "sasrec")
    with pytest.raises(ValueError, match="BEAM_GROUPS is 2, but system 'popularity' searches without"):
        serving.recommend(run, data, systems, beam_groups=2)
    with pytest.raises(ValueError, match="system 'popularity' has no beam search to export"):
        serving.export_for_serving(run, data, systems)


def test_an_export_answers_as_the_beams_do(stages, fitted, data, system):
    serving.export_for_serving(str(stages.directory), data, {"item_history": system}, platforms=("cpu",))
    server, test = Server(stages.directory / "serving"), stages.split.evaluation("test")
    assert server.facts["lengths"] == [2, 6, 12]  # numbers of one, three and six events of an item and its gap
    prompts, ranker = fitted.ranker.prompts(test), fitted.ranker
    asked = [prompts.of(np.array([row])).tolist() for row in range(20)]
    codes, log_probs = server.search(asked)
    expected = ranker.recommender.search(fitted.search[1], prompts)
    np.testing.assert_array_equal(codes, expected[0][:20])
    np.testing.assert_allclose(log_probs, expected[1][:20], rtol=1e-4, atol=1e-5)
    with pytest.raises(ServingError, match="prompt 0 has token 99, expected ids from 0 to 47"):
        server.search([[99, 0]])
    with pytest.raises(ServingError, match="more than Semantic IDs"):
        server.prompt([server._item_ids[0]])


def test_a_model_of_items_alone_is_asked_by_their_names(without_fields, tmp_path):
    recommender, params = without_fields.search
    recipe = {"items": True, "history_length": 3}
    directory = export_serving(
        recommender, params, directory=tmp_path / "out", lengths=(3,), prompt_recipe=recipe, platforms=("cpu",)
    )
    names = Server(directory)._item_ids
    assert Server(directory).prompt(names[:5]) == [2, 3, 4]
