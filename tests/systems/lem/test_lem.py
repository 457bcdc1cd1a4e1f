"""LEM: its loss by hand, sharded as single, and lists that are those of all products."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from plum_jax.corpus.features import CoWatchEmbedding, build_features
from plum_jax.corpus.sources.simulator import Simulator
from plum_jax.corpus.splits import LeaveOneOut
from plum_jax.model.config import DecoderConfig
from plum_jax.objectives.info_nce import InfoNce
from plum_jax.systems.lem.network import TwoTowers
from plum_jax.systems.lem.system import Lem, item_features
from plum_jax.systems.popularity import Popularity
from plum_jax.training.mesh import MeshShape, batch_sharding
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupCosine
from plum_jax.training.step import initial_state, make_train_step
from plum_jax.training.training_config import TrainingConfig

SMALL = DecoderConfig(num_layers=1, d_model=16, num_heads=2, num_kv_heads=2, head_dim=8, mlp_dim=32, scan_layers=False)
TRAINING = TrainingConfig(
    steps=60, optimizer=AdamW(schedule=WarmupCosine(peak=1e-2, warmup_steps=5)), tensorboard=False
)
SYSTEM = Lem(SMALL, training=TRAINING, history_length=12, batch_size=8, row_length=24)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = epath.Path(tmp_path_factory.mktemp("run"))
    split = LeaveOneOut().split(Simulator(num_users=200, num_items=48, mean_history=9.0, branching=(2, 2)).read())
    builders = (CoWatchEmbedding(dim=4),)
    features = build_features(split, builders, directory / "features")
    data = types.SimpleNamespace(feature_builders=builders)
    return types.SimpleNamespace(split=split, features=features, data=data, directory=directory)


@pytest.fixture(scope="module")
def fitted(run):
    return SYSTEM.fit(run, "lem")


@pytest.fixture(scope="module")
def batch(run):
    return next(SYSTEM.feed(run.split, item_features(run)).make_iterator())


def network(run):
    return TwoTowers(SMALL, run.split.corpus.num_items, 4)


def test_it_beats_popularity_and_ranks_by_all_products(run, fitted):
    evaluation = run.split.evaluation("test")
    ranking = fitted.rank(evaluation, 10)
    popular = Popularity().recommend(run.split, evaluation, 10).items
    ours, theirs = (
        np.mean((items == evaluation.target_item[:, None]).any(axis=1)) for items in (ranking.lists.items, popular)
    )
    assert ours > theirs + 0.05
    users = fitted.scorer.users(fitted.params, [evaluation.history(row) for row in range(len(evaluation))])
    items = fitted.scorer.items(fitted.params)
    np.testing.assert_allclose(np.linalg.norm(users, axis=1), 1, rtol=1e-5)
    products = users @ items.T
    found = np.take_along_axis(products, ranking.lists.items, axis=1)
    np.testing.assert_allclose(found, -np.sort(-products, axis=1)[:, :10], rtol=1e-5)
    counted = sum(np.size(leaf) for leaf in jax.tree.leaves(fitted.params))
    assert fitted.facts["parameters"] == counted == fitted.facts["non_embedding_parameters"] + 48 * 16


@pytest.mark.parametrize("corrected", [True, False])
def test_the_loss_is_the_definition(run, fitted, batch, corrected):
    batch = batch | {"decoder_loss_weights": np.where(np.arange(24) < 20, batch["decoder_loss_weights"], 0)}
    loss = InfoNce(corrected).on(network(run), TRAINING.mesh.build(jax.devices()[:1]))
    total, weight, _ = loss(fitted.params, jax.tree.map(jnp.asarray, batch), None)
    users, items, scale = network(run).apply({"params": fitted.params}, batch, method="towers")
    users, items = np.asarray(users, np.float64).reshape(-1, 16), np.asarray(items, np.float64).reshape(-1, 16)
    flat = {name: batch[name].reshape(-1) for name in ("decoder_target_tokens", "decoder_loss_weights", "target_log_q")}
    real = np.flatnonzero(flat["decoder_loss_weights"])
    expected = 0.0
    for place in real:
        others = [p for p in real if flat["decoder_target_tokens"][p] != flat["decoder_target_tokens"][place]]
        scores = np.array([float(scale) * users[place] @ items[p] for p in (place, *others)])
        if corrected:
            scores -= flat["target_log_q"][[place, *others]]
        expected += np.log(np.sum(np.exp(scores))) - scores[0]
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    assert float(weight) == len(real)


def test_a_step_on_eight_devices_is_a_step_on_one(run, fitted, batch):
    steps = []
    for shape, devices in ((MeshShape(), jax.devices()[:1]), (MeshShape(data=4, fsdp=2), jax.devices())):
        mesh = shape.build(devices)
        optimizer = TRAINING.optimizer.build(60)
        key = jax.random.key(0)
        one = jax.tree.map(lambda x: jnp.asarray(x[:1, :1]), batch)
        net = network(run)
        state = initial_state(lambda key, n=net, b=one: n.init(key, b, method="towers")["params"], optimizer, key, mesh)
        step = make_train_step(InfoNce().on(net, mesh), optimizer, 1, key, mesh, state)
        placed = jax.device_put(batch, batch_sharding(mesh))
        state, sums = step(state, placed)
        steps.append((jax.device_get(state.params), jax.device_get(sums["loss"])))
    np.testing.assert_allclose(steps[0][1], steps[1][1], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), steps[0][0], steps[1][0])


def test_gradient_accumulation_is_refused():
    with pytest.raises(ValueError, match="expected microbatches=1, got 2"):
        dataclasses.replace(SYSTEM, training=dataclasses.replace(TRAINING, microbatches=2))


def test_without_features_it_is_embeddings_alone(run, tmp_path):
    bare = types.SimpleNamespace(
        split=run.split, data=types.SimpleNamespace(feature_builders=()), directory=epath.Path(tmp_path)
    )
    short = dataclasses.replace(SYSTEM, training=dataclasses.replace(TRAINING, steps=2))
    assert "features" not in short.fit(bare, "lem").params
