"""A study scales the two towers: counts are the arrays, the loss is brute force, the timed step is the feed's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.corpus import features
from plum_jax.corpus.sources.simulator import Simulator
from plum_jax.corpus.splits import LeaveOneOut
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import train_step_flops
from plum_jax.stages import Data
from plum_jax.studies.cell import TRAINING, run_cell
from plum_jax.studies.grid import IsoFlop
from plum_jax.studies.records import cell_directory, shared_directory
from plum_jax.studies.rules import Ladder, PowerRule
from plum_jax.studies.study import Study
from plum_jax.systems.lem import Lem
from plum_jax.systems.lem.scaling import ScaledLem
from plum_jax.training.optimizer import AdamW
from plum_jax.training.saved_params import load_params
from plum_jax.training.schedules import WarmupCosine
from plum_jax.training.training_config import TrainingConfig

DATA = Data(
    source=Simulator(num_users=120, num_items=40, mean_history=9.0, branching=(2, 2)),
    splitter=LeaveOneOut(),
    feature_builders=(features.CoWatchEmbedding(dim=4),),
)
TRAINED = TrainingConfig(optimizer=AdamW(schedule=WarmupCosine(peak=1e-2, warmup_steps=5)), tensorboard=False)
SCALED = ScaledLem(DATA, Lem(training=TRAINED, history_length=6, row_length=12), ks=(1, 5))
STATED = Study(
    name="lem",
    system=SCALED,
    sizes=Ladder(((8, 1),), head_dim=8),
    grid=IsoFlop(budgets=(6e8,)),
    learning_rate=PowerRule(1e-2),
    batch_size=PowerRule(8),
    held_out=(),
    evaluation_users=30,
)
CELL = "b00-d008x1-s0"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study of one cell: its directory, its row and the parameters."""
    directory = tmp_path_factory.mktemp("lem")
    row = run_cell(STATED, CELL, directory)
    return directory, row, load_params(f"{cell_directory(directory, CELL)}/{TRAINING}/params")


def test_a_row_says_what_was_spent_and_found(done):
    directory, row, params = done
    assert row["status"] == "finished" and row["flops"] == pytest.approx(6e8, rel=0.02)
    assert row["parameters"] == sum(np.size(leaf) for leaf in jax.tree.leaves(params))
    assert 0 < row["loss"] < 2 * np.log(40) and row["hits@5"] == round(30 * row["recall@5"])
    assert not (shared_directory(directory) / "sids").exists(), "no Semantic IDs are made"
    assert 0.1 < row["tokens"] / (row["steps"] * row["batch_tokens"]) <= 1, "what laws are fitted to"


def test_its_loss_is_that_of_each_user_s_item_among_all_items(done):
    directory, row, params = done
    trial = SCALED.sized(STATED.all_sizes[0].decoder, TRAINED, 8).trial(shared_directory(directory), 30)
    test, values = trial.stages.split.evaluation("test"), trial.features
    network = trial.config.system.network(*values.shape)
    apply = jax.jit(lambda method, *inputs: network.apply({"params": params}, *inputs, method=method), static_argnums=0)
    everything = np.asarray(apply("item_vectors", np.arange(40), values))
    nats = []
    for user in np.arange(30) * len(test) // 30:
        items = np.asarray(test.history(int(user))[-6:], np.int32)
        length, items = len(items), np.pad(items, (0, 6 - len(items)))[None]
        causal = jnp.tri(6, dtype=bool)[None]
        state = np.asarray(apply("users", items, values[items], np.arange(6)[None], causal))[0, length - 1]
        scores = np.exp(params["log_scale"]) * everything @ state
        nats.append(-jax.nn.log_softmax(scores)[test.target_item[int(user)]])
    assert row["loss"] == pytest.approx(np.mean(nats), rel=1e-4)


def test_the_step_that_is_timed_has_the_shapes_of_the_feed_and_the_flops_of_its_parts(done):
    directory, _, _ = done
    sized = SCALED.sized(DecoderConfig(num_layers=1, d_model=8, num_heads=1, num_kv_heads=1, head_dim=8), TRAINED, 8)
    data = sized.prepare(shared_directory(directory), 30).data
    trial = sized.trial(shared_directory(directory), 30)
    ours = next(sized.system.feed(trial.stages.split, trial.features).make_iterator())
    recipe = sized.step(data)
    shapes = {name: (values.shape, values.dtype) for name, values in recipe.batch().items()}
    assert shapes == {name: (values.shape, values.dtype) for name, values in ours.items()}
    # A decoder whose vocabulary is the batch, and two projections of four features.
    expected = train_step_flops(sized.system.transformer, 96, 8, 12, causal=True) + 96 * 3 * 2 * 2 * 4 * 8
    assert recipe.flops == pytest.approx(expected)
    wider = dataclasses.replace(sized.system, batch_size=16)
    assert wider.flops_parts(4)["head"] == 2 * sized.system.flops_parts(4)["head"], "twice the negatives"
