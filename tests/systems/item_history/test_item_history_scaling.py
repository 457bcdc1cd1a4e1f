"""What a study asks of an item-level model."""

import dataclasses

import pytest
from small_item_history import DATA, SYSTEM

from plum_jax.studies.cell import run_cell
from plum_jax.studies.grid import IsoFlop
from plum_jax.studies.rules import Ladder, PowerRule
from plum_jax.studies.study import Study
from plum_jax.systems.item_history.scaling import ScaledItemHistory


def test_the_step_that_a_study_times_has_the_shapes_of_the_feed(stages, fitted):
    scaled = ScaledItemHistory(DATA, SYSTEM)
    data = scaled.prepare(stages.directory, 40).data
    ours = next(SYSTEM.feed(stages.split, fitted.ranker.known).make_iterator())
    assert {n: (v.shape, v.dtype) for n, v in scaled.step(data).batch().items()} == {
        n: (v.shape, v.dtype) for n, v in ours.items()
    }


@pytest.mark.slow
def test_a_study_scales_it(tmp_path):
    scaled = ScaledItemHistory(DATA, dataclasses.replace(SYSTEM, num_beams=10), ks=(1, 5))
    stated = Study(
        name="items",
        system=scaled,
        sizes=Ladder(((8, 1), (16, 1)), head_dim=8),
        grid=IsoFlop(budgets=(2e9,)),
        learning_rate=PowerRule(1e-2),
        batch_size=PowerRule(8),
        held_out=(),
        evaluation_users=40,
    )
    row = run_cell(stated, "b00-d016x1-s0", tmp_path)
    assert row["status"] == "finished" and row["flops"] == pytest.approx(2e9, rel=0.01)
    assert row["best_possible_loss"] < row["loss"] == pytest.approx(sum(row[f"loss_level_{n}"] for n in (1, 2, 3)) / 3)
    assert row["hits@5"] == round(row["recall@5"] * 40)
