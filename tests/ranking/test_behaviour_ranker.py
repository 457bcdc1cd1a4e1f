"""Rankers learn what is planted, go on after a kill, and are the base model where nothing else is known."""

import dataclasses

import jax
import numpy as np
import planted_taste
import pytest
from flax import linen as nn
from planted_taste import LABEL, TRAINING, ranker, stages

from plum_jax.evaluation.metrics.classification import auc
from plum_jax.objectives.log_loss import LogLoss
from plum_jax.ranking.knowledge import KnowledgeTables
from plum_jax.ranking.networks.dien import Dien
from plum_jax.ranking.networks.din import Din
from plum_jax.ranking.networks.network import RankingNetworkConfig
from plum_jax.ranking.networks.sim import Sim
from plum_jax.ranking.networks.twin import Twin
from plum_jax.ranking.ranker import BehaviourRanker, initial_params

INTERESTS = [Din(8), Dien(), Sim(found=2, short=4, heads=1, head_dim=4, hidden=8), Twin(top_k=4, heads=2, head_dim=4)]


def names_of(params):
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def measured(fitted, run):
    events = LABEL.of(run.split)
    return auc(events.label[events.rows["test"]], fitted.scores(events.rows["test"]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stages(tmp_path_factory.mktemp("run"))


@dataclasses.dataclass(frozen=True)
class Told:
    """Knowledge whose match is the label, with a condition that knows nothing behind it."""

    def read(self, stages):
        label = np.nan_to_num(LABEL.of(stages.split).label)
        queries = np.zeros((stages.corpus.num_events, 2, 2), np.float16)
        queries[:, 0, 0], queries[:, 1, 1] = 2 * label - 1, 1
        items = np.tile(np.array([[1.0, 0.0]], np.float32), (stages.corpus.num_items, 1))
        return KnowledgeTables(queries, items, "told", ("told", "nothing"))


@pytest.mark.parametrize(
    "interest",
    [
        pytest.param(config, id=type(config).__name__, marks=[pytest.mark.slow] * isinstance(config, Dien | Sim))
        for config in INTERESTS
    ],
)
def test_it_learns_what_is_planted(run, interest):
    # What comes next is drawn anew in this corpus: DIEN's own loss can learn nothing of it.
    system = dataclasses.replace(ranker(interest), objective=LogLoss(0.0))
    training = dataclasses.replace(TRAINING, steps=300)
    fitted = dataclasses.replace(system, training=training).fit(run, LABEL, type(interest).__name__)
    assert measured(fitted, run) > 0.75
    counted = sum(np.size(leaf) for leaf in jax.tree.leaves(fitted.params))
    tables = sum(np.size(leaf) for leaf in jax.tree.leaves(fitted.params["items"] | fitted.params["fields"]))
    of_age = np.size(fitted.params["user"]["field_0_embedding"])
    if "cross" in fitted.params["interest"]:
        tables += sum(np.size(leaf) for leaf in jax.tree.leaves(fitted.params["interest"]["cross"]))
    assert fitted.facts["parameters"] == counted == fitted.facts["non_embedding_parameters"] + tables + of_age


def test_scores_hang_on_no_other_event_of_the_call(run):
    fitted = ranker(Din(8)).fit(run, LABEL, "din")
    rows = np.random.default_rng(0).permutation(run.corpus.num_events)[:50]
    together = fitted.scores(rows)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together[:7], fitted.scores(rows[:7]), rtol=1e-5, atol=1e-6)
    assert fitted.scores(rows[:0]).shape == (0,)


def test_a_score_knows_nothing_of_the_event_or_of_what_comes_after_it(run):
    """Ratings from some event on are changed: scores up to it stay, bit for bit."""
    system = ranker(Din(8))
    fitted = system.fit(run, LABEL, "din")
    rows = np.arange(run.corpus.num_events)
    cut = run.corpus.history_offsets[7] + 9
    buckets = fitted.columns._behaviour.buckets.copy()
    buckets[cut:] = (buckets[cut:] + 1) % fitted.columns.sizes.behaviour[0]
    changed = system.columns(run, LABEL)
    object.__setattr__(changed._behaviour, "buckets", buckets)
    other = dataclasses.replace(fitted, columns=changed).scores(rows)
    same = fitted.scores(rows) == other
    assert same[: cut + 1].all() and not same[cut + 1 : run.corpus.history_offsets[8]].any()


def test_without_knowledge_it_is_the_base_model_and_with_it_there_is_more(run):
    base = ranker(Din(8))
    told = {use: ranker(Din(8), network={"use": use}, knowledge=Told()) for use in ("direct", "matching", "both")}
    columns = base.columns(run, LABEL)
    params = initial_params(base.build(columns), columns.of(np.arange(1)), jax.random.key(0))
    same = ranker(Din(8), network={"use": "matching", "knowledge_dim": 7})
    again = initial_params(same.build(columns), columns.of(np.arange(1)), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, params, again)
    assert not any("knowledge" in name for name in names_of(params))
    added = {"direct": {"queries", "item"}, "matching": {"match_scale", "match_bias"}}
    added["both"] = added["direct"] | added["matching"]
    for use, system in told.items():
        more = system.columns(run, LABEL)
        found = initial_params(system.build(more), more.of(np.arange(1)), jax.random.key(0))
        assert set(found.pop("knowledge")) == added[use]
        assert names_of(found) == names_of(params)
    assert measured(told["matching"].fit(run, LABEL, "told"), run) > 0.99


def test_the_loss_is_the_definition(run):
    system = ranker(Dien())
    columns, events = system.columns(run, LABEL), LABEL.of(run.split)
    network, batch = system.build(columns), next(system.feed(columns, events).make_iterator())
    params = nn.unbox(initial_params(network, batch, jax.random.key(1)))
    total, weight, metrics = LogLoss(0.5).on(network, TRAINING.mesh.build())(params, batch, None)
    output = network.apply({"params": params}, batch)
    p = 1 / (1 + np.exp(-np.asarray(output.logits, np.float64)))
    loss = -np.where(batch["label"] == 1, np.log(p), np.log(1 - p)).mean()
    auxiliary = output.auxiliary_loss[0] / output.auxiliary_loss[1]
    np.testing.assert_allclose(float(total / weight), loss + 0.5 * auxiliary, rtol=1e-5)
    assert float(weight) == len(batch["label"]) == 64
    means = {name: float(sum_ / count) for name, (sum_, count) in metrics.items()}
    assert means["log_loss"] == pytest.approx(loss, rel=1e-5)
    assert means["mean_prediction"] == pytest.approx(p.mean(), rel=1e-5)
    assert means["mean_label"] == pytest.approx(batch["label"].mean())
    assert means["accuracy"] == pytest.approx(((p > 0.5) == batch["label"]).mean())


def test_passes_are_steps(run):
    system = dataclasses.replace(ranker(Din(8)), epochs=0.5)
    fitted = system.fit(run, LABEL, "half")
    rows = LABEL.of(run.split).rows["training"]
    steps = round(0.5 * (len(rows) // 64))
    same = dataclasses.replace(system, epochs=None, training=dataclasses.replace(TRAINING, steps=steps))
    assert same.fit(run, LABEL, "half").fingerprint == fitted.fingerprint


def test_what_cannot_be_is_said(run):
    with pytest.raises(ValueError, match="use of knowledge to be one of .*'matching', 'both'.*, got 'all'"):
        RankingNetworkConfig(use="all")
    bare = dataclasses.replace(planted_taste.corpus(users=6), item_features=())
    unnamed = dataclasses.replace(run)
    object.__setattr__(unnamed, "split", dataclasses.replace(run.data.splitter).split(bare))
    with pytest.raises(ValueError, match="Sim searches behaviours of the candidate's category, and corpus 'planted'"):
        ranker(Sim()).fit(unnamed, LABEL, "sim")
    with pytest.raises(ValueError, match="no field 'price' of events"):
        dataclasses.replace(ranker(Din()), behaviour_fields=("price",)).fit(run, LABEL, "price")
    assert BehaviourRanker().network.interest == Din()
