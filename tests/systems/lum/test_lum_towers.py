"""Two towers with and without a user model's answers: what they read, what they rank, sharded = single by InfoNCE's."""

import dataclasses

import numpy as np
import pytest
from two_shops import LUM, TRAINING, stages

from plum_jax.systems.lum.knowledge import LumKnowledge
from plum_jax.systems.lum.towers import LumTowers
from plum_jax.systems.lum.towers_network import TowersConfig
from plum_jax.systems.popularity import Popularity

KNOWLEDGE = LumKnowledge(LUM, {"old shop": {"shop": "old"}, "liked": {"rating": 5}})
TOWERS = LumTowers(
    TowersConfig(8, 4, 4, 4, 8, (16, 8)),
    training=TRAINING,
    behaviour_fields=("rating",),
    batch_size=64,
    history_length=6,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stages(tmp_path_factory.mktemp("run"))


def test_the_request_decides_what_is_found_and_lists_are_all_products(run):
    """The shop of the target's event is known before it: its items come first."""
    fitted = TOWERS.fit(run, "towers")
    evaluation = run.split.evaluation("test")
    lists = fitted.rank(evaluation, 5).lists
    parity = (run.corpus.events["shop"].to_numpy()[evaluation.target_event] == "old").astype(int)
    assert np.mean(lists.items % 2 == parity[:, None]) > 0.9
    hits = [
        (x == evaluation.target_item[:, None]).any(axis=1).mean()
        for x in (lists.items, Popularity().recommend(run.split, evaluation, 5).items)
    ]
    assert hits[0] > hits[1]
    assert fitted.facts["parameters"] > fitted.facts["non_embedding_parameters"]


def test_with_knowledge_the_towers_read_it(run):
    short = dataclasses.replace(TOWERS, knowledge=KNOWLEDGE, training=dataclasses.replace(TRAINING, steps=3))
    fitted = short.fit(run, "towers_lum")
    assert {"queries", "item_knowledge"} <= set(fitted.params)
    evaluation = run.split.evaluation("test")
    first = fitted.rank(evaluation, 24)
    # Other answers, other lists: the queries are in the user's vector.
    tables = dataclasses.replace(fitted.columns.knowledge, queries=-fitted.columns.knowledge.queries)
    other = dataclasses.replace(fitted, columns=dataclasses.replace(fitted.columns, knowledge=tables))
    assert (other.rank(evaluation, 24).lists.items != first.lists.items).any()
    with pytest.raises(ValueError, match="expected microbatches=1, got 2"):
        dataclasses.replace(TOWERS, training=dataclasses.replace(TRAINING, microbatches=2))
