"""What a study scales need not be the decoder: SASRec in its place, and a system of somebody's own."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from small_study import small_pipeline, study, with_schedule

from plum_jax.evaluation.scalable import DataFacts, Prepared
from plum_jax.model.config import DecoderConfig
from plum_jax.objectives.item_losses import SampledSoftmax
from plum_jax.studies import plan as plans
from plum_jax.studies.cell import TRAINING, run_cell
from plum_jax.studies.grid import Horizons, IsoFlop
from plum_jax.studies.machines import StepCost
from plum_jax.studies.records import cell_directory, shared_directory
from plum_jax.studies.rules import Ladder, PowerRule
from plum_jax.studies.shared import shared
from plum_jax.studies.solve import cells_of
from plum_jax.systems.sasrec import SasRec
from plum_jax.systems.sasrec.scaling import ScaledSasRec
from plum_jax.training.saved_params import load_params
from plum_jax.training.schedules import WarmupStableDecay
from plum_jax.training.step import initial_state

DATA = small_pipeline().data
TRAINING_CONFIG = with_schedule(WarmupStableDecay()).retrieval.training
SYSTEM = ScaledSasRec(DATA, SasRec(training=TRAINING_CONFIG, history_length=8, row_length=16), ks=(1, 5))
STATED = study(
    system=SYSTEM,
    sizes=Ladder(((8, 1),), head_dim=8),
    grid=IsoFlop(budgets=(4e7, 12e7)),
    batch_size=PowerRule(8),
    decay_share=0.25,
    shared_trunks=True,
)
SHORT, LONG = "b00-d008x1-s0", "b01-d008x1-s0"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished study of SASRec: its directory and its two rows."""
    directory = tmp_path_factory.mktemp("sasrec")
    return directory, [run_cell(STATED, name, directory) for name in (SHORT, LONG)]


def test_a_row_of_sasrec_says_what_a_row_of_a_decoder_says(done):
    directory, (row, _) = done
    data = shared(STATED, directory).data
    assert (data.vocab_size, data.sid_levels, data.evaluation_users) == (64, 1, 40)
    assert row["status"] == "finished" and row["flops"] == pytest.approx(4e7, rel=0.01)
    assert 0 < row["loss"] < 2 * np.log(64) and row["hits@5"] == round(40 * row["recall@5"])
    assert row["best_possible_loss"] < row["loss"]
    params = load_params(f"{cell_directory(directory, SHORT)}/{TRAINING}/params")
    assert row["parameters"] == sum(np.size(leaf) for leaf in jax.tree.leaves(params))
    assert not (shared_directory(directory) / "sids").exists(), "what SASRec does not read is not made"


def test_its_loss_is_that_of_each_user_s_item_among_all_items(done):
    directory, (row, _) = done
    trial = STATED.system.sized(STATED.all_sizes[0].decoder, TRAINING_CONFIG, 8).trial(shared_directory(directory), 40)
    params = load_params(f"{cell_directory(directory, SHORT)}/{TRAINING}/params")
    test = trial.split.evaluation("test")
    network = trial.config.system.network(64)
    logits_of = jax.jit(lambda *inputs: network.apply({"params": params}, *inputs)[0])
    nats = []
    for user in np.arange(40) * len(test) // 40:
        items = np.asarray(test.history(int(user))[-8:], np.int32)
        length, items = len(items), np.pad(items, (0, 8 - len(items)))[None]  # of one shape: another compiles again
        causal = np.tri(items.shape[1], dtype=bool)[None]
        logits = logits_of(items, np.arange(items.shape[1])[None], causal)[0, length - 1]
        nats.append(-jax.nn.log_softmax(np.asarray(logits, np.float32))[test.target_item[int(user)]])
    assert row["loss"] == pytest.approx(np.mean(nats), rel=1e-4)


def test_a_branch_of_sasrec_s_trunk_is_the_run_that_trained_alone(done, tmp_path):
    directory, (_, longer) = done
    alone = dataclasses.replace(STATED, shared_trunks=False, grid=IsoFlop(budgets=(12e7,)))
    alone = dataclasses.replace(alone, warmup_share=round(0.1 * done[1][0]["steps"]) / longer["steps"])
    row = run_cell(alone, "b00-d008x1-s0", tmp_path)
    assert row["steps"] == longer["steps"] and row["loss"] == longer["loss"]


def test_drawn_items_cost_less_than_all_of_them():
    facts = DataFacts(vocab_size=5000, length=16)
    drawn = dataclasses.replace(SYSTEM, system=dataclasses.replace(SYSTEM.system, objective=SampledSoftmax(99)))
    width = SYSTEM.system.transformer.d_model
    full, fewer = (system.flops_parts(facts) for system in (SYSTEM, drawn))
    assert full["head"] - fewer["head"] == 6 * width * (5000 - 100)
    assert full["scores"] == fewer["scores"]
    assert drawn.step(facts).flops < SYSTEM.step(facts).flops


@dataclasses.dataclass(frozen=True)
class Powers:
    """Somebody's own system, from outside: its loss is a law of its parameters and tokens."""

    transformer: DecoderConfig = DecoderConfig()
    training = TRAINING_CONFIG
    steps: int = 0
    length = 10
    source = DATA.source
    ks = (1, 5)
    data_config = own_config = property(lambda self: {"width": self.transformer.d_model, "steps": self.steps})

    def sized(self, transformer, training, batch_size):
        return Powers(transformer, training.steps * batch_size)

    def prepare(self, directory, max_users):
        return Prepared(DataFacts(64, self.length, 1000, 1.0, 4, 3.0, 1), np.arange(4), False)

    def trial(self, directory, max_users):
        return self

    def train(self, directory, branch_at, description):
        return self.counts(None)["total"] ** -0.5 + self.steps**-0.5

    def judge(self, params):
        return {"loss": params, "recall@1": 0.25, "recall@5": 0.5}

    def counts(self, data):
        return dict.fromkeys(
            ("total", "activated", "non_embedding", "activated_non_embedding"), self.transformer.d_model
        )

    def flops_parts(self, data):
        return {"projections": 6.0 * self.transformer.d_model, "scores": 0.0, "router": 0.0, "head": 0.0}

    def evaluation_flops(self, data):
        return 1.0


def test_a_system_from_outside_is_planned_and_run(tmp_path):
    class Clock:
        name, chips, price = "clock", 1, None

        def step_costs(self, study, cells, data, directory):
            return {cell.cell_id: StepCost(1.0) for cell in cells}

    stated = study(system=Powers(), grid=Horizons(tokens=(1000, 4000)), batch_size=PowerRule(1))
    plan = plans.plan(stated, tmp_path, shared(stated, tmp_path).data, Clock())
    assert [(row["parameters"], row["steps"]) for row in plan["cells"]] == [(8, 100), (16, 100), (8, 400), (16, 400)]
    assert plan["cells"][0]["flops"] == 6 * 8 * 1000
    row = run_cell(stated, "t01-d016x1-s0", tmp_path)
    assert (row["loss"], row["hits@5"]) == (16**-0.5 + 400**-0.5, 2)


def test_the_step_that_is_timed_has_the_shapes_of_the_feed(done):
    directory, _ = done
    data = shared(STATED, directory).data
    sized = STATED.system_of(cells_of(STATED, data)[0])
    recipe, feed = sized.step(data), sized.system.feed(DATA.stages(shared_directory(directory)).split)
    batch = next(iter(feed.make_iterator()))
    shapes = {name: (values.shape, values.dtype) for name, values in batch.items()}
    assert {name: (v.shape, v.dtype) for name, v in recipe.batch().items()} == shapes
    optimizer = recipe.training.optimizer.build(recipe.training.steps)
    state = initial_state(recipe.init_params, optimizer, jax.random.key(0), recipe.training.mesh.build())
    loss = functools.partial(recipe.objective(recipe.training.mesh.build()), rng=None)
    assert np.isfinite(loss(state.params, batch)[0])
