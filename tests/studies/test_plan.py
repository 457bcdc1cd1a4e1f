"""A plan: its sums and figures, that it may grow and not change, and that it reads well."""

import dataclasses

import pytest
from small_study import study

from plum_jax.studies import plan as plans
from plum_jax.studies.grid import DataFacts, IsoFlop
from plum_jax.studies.plan_table import duration, plan_text
from plum_jax.studies.study import StudyError

DATA = DataFacts(vocab_size=100, length=64, unique_tokens=50_000, fill=0.8, evaluation_users=10, prompt_tokens=30.0)


@pytest.fixture(autouse=True)
def timed(monkeypatch):
    """Steps that take a hundredth of a second, so that no machine plays a part."""
    monkeypatch.setattr(plans, "step_times", lambda study, cells, data, directory: {c.cell_id: 0.01 for c in cells})


def made(tmp_path, **changes):
    return plans.plan(study(**changes), tmp_path, DATA)


def test_figures_follow_from_steps_and_sum_up(tmp_path):
    plan = made(tmp_path)
    rows = plan["cells"]
    assert [row["cell_id"] for row in rows] == ["b00-d008x1-s0", "b00-d016x1-s0", "b01-d008x1-s0", "b01-d016x1-s0"]
    for row in rows:
        assert row["positions"] == row["steps"] * row["batch_size"] * 64
        assert row["tokens"] == pytest.approx(row["positions"] * 0.8, abs=1)
        assert row["epochs"] == pytest.approx(row["tokens"] / 50_000, rel=1e-4)
        assert row["flops"] == pytest.approx(row["budget"], rel=0.01)
        assert row["flops_6nd"] == 6 * row["parameters"] * row["positions"]
        assert row["train_seconds"] == pytest.approx(row["steps"] / 100)
        assert row["predicted_seconds"] > row["train_seconds"]
    for name in ("flops", "tokens", "predicted_seconds"):
        assert plan["total"][name] == pytest.approx(sum(row[name] for row in rows))


def test_a_plan_grows_by_cells_and_keeps_those_it_has(tmp_path):
    plans.write_plan(made(tmp_path, held_out=()), tmp_path)
    first = plans.read_plan(tmp_path)
    plans.write_plan(made(tmp_path, held_out=(), grid=IsoFlop(budgets=(8e8, 16e8, 32e8))), tmp_path)
    grown = plans.read_plan(tmp_path)
    assert len(grown["cells"]) == 6 and grown["cells"][:4] == first["cells"]


def test_another_study_in_its_place_is_refused_by_what_differs(tmp_path):
    plans.write_plan(made(tmp_path), tmp_path)
    with pytest.raises(StudyError, match="has the cell b01-d008x1-s0, which this study has not"):
        plans.write_plan(made(tmp_path, grid=IsoFlop(budgets=(8e8,))), tmp_path)
    rate = dataclasses.replace(study().learning_rate, base=5e-3)
    with pytest.raises(StudyError, match=r"b00-d008x1-s0 differs in learning_rate 0.01 -> 0.005; set it as it was"):
        plans.write_plan(made(tmp_path, learning_rate=rate), tmp_path)
    with pytest.raises(StudyError, match="b00-d008x1-s0 differs in its data, task, optimizer or evaluation"):
        plans.write_plan(made(tmp_path, evaluation_users=7), tmp_path)
    with pytest.raises(StudyError, match="there is no plan at .*run gin/run/study_plan.gin"):
        plans.read_plan(tmp_path / "elsewhere")


def test_the_table_has_a_line_for_each_cell_and_says_what_is_left_out(tmp_path):
    plan = made(tmp_path, grid=IsoFlop(budgets=(8e8, 16e8), max_epochs=1.2))
    lines = plan_text(plan).splitlines()
    (of_cell,) = [line for line in lines if line.strip().startswith("b01-d016x1-s0")]
    row = plan["cells"][-1]
    for shown in (f"{row['parameters']:,}", f"{row['tokens']:,}", f"{row['steps']:,}", "10.0", "held out"):
        assert shown in of_cell
    assert "left out: d008x1 in group 1, more than max_epochs 1.2" in lines


def test_durations_read_as_people_say_them():
    assert [duration(s) for s in (12.4, 200, 7500)] == ["12 s", "3 min 20 s", "2 h 5 min"]
