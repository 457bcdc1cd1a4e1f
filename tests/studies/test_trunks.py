"""Runs that branch off one trunk: bit for bit those that would have trained alone; what is spent is counted once."""

import dataclasses

import jax
import numpy as np
import pytest
from small_study import study, with_schedule

from plum_jax.evaluation.scalable import DataFacts
from plum_jax.studies import plan as plans
from plum_jax.studies.cell import TRAINING, run_cell
from plum_jax.studies.grid import IsoFlop
from plum_jax.studies.machines import StepCost
from plum_jax.studies.places import StudyError
from plum_jax.studies.records import cell_directory
from plum_jax.studies.rules import Ladder, PowerRule
from plum_jax.studies.shared import shared as read_shared
from plum_jax.studies.solve import cells_of
from plum_jax.training.checkpoints import CheckpointMismatch
from plum_jax.training.metrics_log import read_metrics
from plum_jax.training.saved_params import load_params
from plum_jax.training.schedules import WarmupStableDecay
from plum_jax.training.trainer import Trunk

DATA = DataFacts(vocab_size=100, length=64, fill=0.8)
STATED = study(
    pipeline=with_schedule(WarmupStableDecay()),
    sizes=Ladder(((8, 1),), head_dim=8),
    shared_trunks=True,
    decay_share=0.25,
)


def branch(row) -> tuple[int, ...]:
    """Steps of the logged rows."""
    return tuple(line["step"] for line in row)


@pytest.fixture(scope="module")
def both(study_directory):
    """The longer of two runs: as a branch of the trunk that the shorter one began, and alone."""
    shared, alone = study_directory(), study_directory()
    rows = [run_cell(STATED, name, shared) for name in ("b00-d008x1-s0", "b01-d008x1-s0")]
    # Alone the longer run has a warm-up of its own, unless it is asked for the shorter one's.
    longer = cells_of(STATED, read_shared(STATED, shared).data)[1]
    stated = dataclasses.replace(STATED, shared_trunks=False, warmup_share=longer.warmup_steps / longer.steps)
    return shared, alone, rows, run_cell(stated, "b01-d008x1-s0", alone)


def test_a_branch_is_bit_for_bit_the_run_that_trained_alone(both):
    shared, alone, (_, row), expected = both
    params = [load_params(f"{cell_directory(d, row['name'])}/{TRAINING}/params") for d in (shared, alone)]
    jax.tree.map(np.testing.assert_array_equal, *params)
    assert row["steps"] == expected["steps"] and row["flops"] == expected["flops"]
    for name in ("loss", "recall@5", "tokens", "config"):
        assert row[name] == expected[name], name


def test_the_trunk_is_trained_once_in_stretches(both):
    shared, _, (short, long), alone = both
    stretches = sorted((shared / "trunks" / "d008x1-s0").iterdir())
    steps = [int(path.name) for path in stretches if path.is_dir()]
    assert steps == [row["steps"] - round(row["steps"] / 4) for row in (short, long)]
    first, second = (branch(read_metrics(path)) for path in stretches if path.is_dir())
    assert max(first) == steps[0] < min(second) and max(second) == steps[1]
    own = branch(read_metrics(f"{cell_directory(shared, long['name'])}/{TRAINING}"))
    assert steps[1] < min(own) and max(own) == long["steps"]
    # What both runs took: the shorter one, and of the longer one what comes after the shorter one's branch.
    assert long["flops_spent"] / long["flops"] == pytest.approx((long["steps"] - steps[0]) / long["steps"])
    assert short["flops_spent"] == short["flops"] and alone["flops_spent"] == alone["flops"]


def test_a_trunk_that_is_not_there_or_of_another_step_is_no_beginning(both, tmp_path):
    shared = both[0]
    trunk = next(path for path in sorted((shared / "trunks" / "d008x1-s0").iterdir()) if path.is_dir())
    with pytest.raises(CheckpointMismatch, match=r"expected a checkpoint of step 5 in .* found none"):
        Trunk(tmp_path / "nothing", 5).restore({}, {})
    with pytest.raises(CheckpointMismatch, match="made with other inputs .*vocabulary: trained with .* has another"):
        Trunk(trunk, int(trunk.name), ("phase",)).restore({}, {"vocabulary": "another", "phase": "another"})


def test_what_is_spent_is_the_trunk_once_and_every_decay():
    stated = dataclasses.replace(STATED, grid=IsoFlop(budgets=(8e8, 3.2e9, 1.6e9)), seeds=(0, 1))
    cells = [cell for cell in cells_of(stated, DATA) if cell.seed == 0]
    assert [cell.cell_id for cell in cells] == ["b00-d008x1-s0", "b02-d008x1-s0", "b01-d008x1-s0"]
    trunk = [cell.steps - cell.decay_steps for cell in cells]
    assert cells[-1].branches == tuple(trunk) and cells[0].branches == (trunk[0],)
    assert sum(cell.steps_spent for cell in cells) == trunk[-1] + sum(cell.decay_steps for cell in cells)
    assert {cell.warmup_steps for cell in cells} == {round(0.1 * cells[0].steps)}
    phase = stated.trunk_of(cells[1], trunk[1]).training
    assert (phase.steps, phase.optimizer.schedule.decay_steps) == (trunk[1], 0)


def test_the_plan_reckons_with_it(tmp_path):
    class Second:
        name, chips, price = "clock", 1, None

        def step_costs(self, study, cells, data, directory):
            return {cell.cell_id: StepCost(1.0) for cell in cells}

    plan = plans.plan(STATED, tmp_path, DATA, Second())
    cells = cells_of(STATED, DATA)
    assert [row["train_seconds"] for row in plan["cells"]] == [cell.steps_spent for cell in cells]
    assert plan["total"]["flops_spent"] < plan["total"]["flops"]
    alone = plans.plan(dataclasses.replace(STATED, shared_trunks=False), tmp_path, DATA, Second())
    assert alone["total"]["flops_spent"] == alone["total"]["flops"] == plan["total"]["flops"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": study().system}, "needs the schedule WarmupStableDecay, got WarmupCosine"),
        ({"batch_size": PowerRule(8, 1e9, 0.3, "flops")}, "needs one batch_size for all groups of a size, got a rule"),
        ({"decay_share": 0.0}, r"needs a decay_share in \(0, 1\), got 0.0"),
    ],
)
def test_studies_without_a_common_trunk_are_refused(changes, message):
    with pytest.raises(StudyError, match=message):
        dataclasses.replace(STATED, **changes)


def test_groups_too_near_for_a_trunk_are_refused():
    stated = dataclasses.replace(STATED, warmup_share=0.7, decay_share=0.3)
    with pytest.raises(StudyError, match="trunk d008x1-s0: runs of .* branch off at .* expected different steps"):
        cells_of(stated, DATA)
