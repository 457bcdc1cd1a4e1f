"""A study scales LUM: counts are the arrays, the loss is brute force, the timed step is the feed's."""

import jax
import numpy as np
import pytest
from two_shops import LUM, NUM_ITEMS, TwoShops

from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import train_flops_parts
from plum_jax.stages import Data
from plum_jax.studies.cell import TRAINING, run_cell
from plum_jax.studies.grid import IsoFlop
from plum_jax.studies.records import cell_directory, shared_directory
from plum_jax.studies.rules import Ladder, PowerRule
from plum_jax.studies.study import Study
from plum_jax.systems.lum.scaling import ScaledLum
from plum_jax.training.saved_params import load_params

SCALED = ScaledLum(Data(TwoShops(), TwoShops()), LUM, ks=(1, 5))
STATED = Study(
    name="lum",
    system=SCALED,
    sizes=Ladder(((8, 1),), head_dim=8),
    grid=IsoFlop(budgets=(6e8,)),
    learning_rate=PowerRule(1e-2),
    batch_size=PowerRule(8),
    held_out=(),
    evaluation_users=30,
)
CELL = "b00-d008x1-s0"


# The same of LEM is not slow.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study of one cell: its directory, its row and the parameters."""
    directory = tmp_path_factory.mktemp("lum")
    row = run_cell(STATED, CELL, directory)
    return directory, row, load_params(f"{cell_directory(directory, CELL)}/{TRAINING}/params")


def test_a_row_says_what_was_spent_and_its_loss_is_that_of_the_target_under_its_condition(done):
    directory, row, params = done
    assert row["status"] == "finished" and row["flops"] == pytest.approx(6e8, rel=0.05)
    assert 0.1 < row["tokens"] / (row["steps"] * row["batch_tokens"]) <= 1, "what laws are fitted to"
    assert row["parameters"] == sum(np.size(leaf) for leaf in jax.tree.leaves(params))
    trial = SCALED.sized(STATED.all_sizes[0].decoder, SCALED.training, 8).trial(shared_directory(directory), 30)
    split, system = trial.stages.split, trial.config.system
    asker, test = system.asker(split, trial.known), split.evaluation("test")
    items, nats = asker.items(params), []
    for user in np.arange(30) * len(test) // 30:
        history = test.history_events[test.history_offsets[user] : test.history_offsets[user + 1]]
        condition = trial.known.events.buckets[test.target_event[user]][None]
        scores = np.exp(params["log_scale"]) * items @ asker.answers(params, [history], condition)[0, 0]
        nats.append(-jax.nn.log_softmax(scores)[test.target_item[user]])
    assert row["loss"] == pytest.approx(np.mean(nats), rel=1e-4) and row["loss"] < 1.5 * np.log(NUM_ITEMS)


def test_the_step_that_is_timed_has_the_shapes_of_the_feed_and_the_flops_of_its_parts(done):
    directory, _, _ = done
    small = DecoderConfig(num_layers=1, d_model=8, num_heads=1, num_kv_heads=1, head_dim=8, scan_layers=False)
    sized = SCALED.sized(small, SCALED.training, 8)
    data = sized.prepare(shared_directory(directory), 30).data
    trial = sized.trial(shared_directory(directory), 30)
    ours = next(sized.system.feed(trial.stages.split, trial.known).make_iterator())
    recipe = sized.step(data)
    shapes = {name: (values.shape, values.dtype) for name, values in recipe.batch().items()}
    assert shapes == {name: (values.shape, values.dtype) for name, values in ours.items()}
    tokens, events = 2 * 8 * 24, 8 * 24
    expected = tokens * sum(train_flops_parts(small, 0, 49 / 2).values())
    expected += events * 3 * 2 * (2 * 8 + events * 8)  # two statistics of an item; scores against the whole batch
    assert recipe.flops == pytest.approx(expected)
