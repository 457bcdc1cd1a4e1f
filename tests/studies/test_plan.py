"""A plan: its sums and figures, that it may grow and not change, and that it reads well."""

import dataclasses
import importlib.util

import pytest
from small_study import study

from plum_jax.evaluation.scalable import DataFacts
from plum_jax.scaling.design import GuessedLaw, expected_standard_errors
from plum_jax.studies import machines
from plum_jax.studies import plan as plans
from plum_jax.studies.grid import IsoFlop
from plum_jax.studies.places import StudyError
from plum_jax.studies.plan_table import duration, plan_text
from plum_jax.studies.rules import Ladder, PowerRule

DATA = DataFacts(vocab_size=100, length=64, unique_tokens=50_000, fill=0.8, evaluation_users=10, prompt_tokens=30.0)


@pytest.fixture(autouse=True)
def timed(monkeypatch):
    """Steps that take a hundredth of a second, so that no machine plays a part."""
    monkeypatch.setattr(machines, "step_times", lambda study, cells, data, directory: {c.cell_id: 0.01 for c in cells})


def made(tmp_path, machine=None, assumptions=None, **changes):
    return plans.plan(study(**changes), tmp_path, DATA, machine, assumptions)


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
        parts = ("projections", "scores", "router", "head")
        assert sum(row[f"flops_{part}"] for part in parts) == pytest.approx(row["flops"])
        assert row["flops_head"] == 6 * 100 * int(row["size"][1:4]) * row["positions"], "2 a multiply-add, three times"
        assert row["flops_router"] == 0
    for name in ("flops", "tokens", "predicted_seconds", "chip_hours"):
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


def test_an_hour_has_its_price(tmp_path):
    plan = made(tmp_path, machines.Here(price_per_hour=36.0))
    assert plan["total"]["cost"] == pytest.approx(plan["total"]["predicted_seconds"] / 100)
    assert f"cost {plan['total']['cost']:,.2f} at 36 a chip-hour" in plan_text(plan)
    assert made(tmp_path)["total"]["cost"] is None and "cost" not in plan_text(made(tmp_path))


def test_expected_errors_are_of_the_cells_that_are_fitted(tmp_path):
    grid = IsoFlop(budgets=(8e9, 3e10, 1e11, 4e11))
    sizes = Ladder(((8, 1), (16, 1), (24, 1), (32, 1)), head_dim=8)
    law = GuessedLaw(E=1.0, A=20, B=30, alpha=0.4, beta=0.3)
    plan = made(tmp_path, None, plans.Assumptions(law, 0.01), sizes=sizes, grid=grid)
    fitted = [row for row in plan["cells"] if not row["held_out"]]
    assert len(fitted) == 12
    expected = expected_standard_errors([r["parameters"] for r in fitted], [r["tokens"] for r in fitted], law, 0.01)
    assert plan["expected_errors"]["a"] == expected.a and expected.text() in plan_text(plan)
    few = made(tmp_path)["expected_errors"]
    assert few["a"] is None and "do not identify the law" in few["text"]


def test_warnings_are_what_a_reviewer_would_say(tmp_path):
    good = {
        "sizes": Ladder(tuple((width, 1) for width in (8, 16, 24, 32, 48)), head_dim=8),
        "grid": IsoFlop(budgets=(4e9, 2e10, 1.5e11, 2e11)),
        "seeds_at": ((0, 1), (0,), (0,), (0,)),
        "batch_size": PowerRule(1, reference=1e9, exponent=0.5, of="flops"),
    }
    data = dataclasses.replace(DATA, unique_tokens=10**8)
    law = plans.Assumptions(GuessedLaw())  # whose minima these sizes enclose at every budget

    def warnings(**changes) -> list[str]:
        return plans.plan(study(**{**good, **changes}), tmp_path, data, None, law)["warnings"]

    assert warnings() == []
    (epochs,) = plans.plan(study(**good), tmp_path, DATA, None, law)["warnings"]
    assert "see the data more than 4 times (b03-d008x1-s0:" in epochs
    for changes, said in [
        ({"batch_size": PowerRule(4)}, "take fewer than 100 steps"),
        (
            {"grid": IsoFlop(budgets=(8e9, 2e10, 2e11)), "seeds_at": ((0, 1), (0,), (0,))},
            "span 0.40 decades, less than 1.5",
        ),
        ({"held_out": ()}, "no group is held out"),
        ({"seeds_at": ()}, "no place of the grid has two seeds"),
        ({"sizes": Ladder(((8, 1), (16, 1), (24, 1), (48, 1)), head_dim=8)}, "budget 4e+09 has 4 sizes, fewer than 5"),
        ({"sizes": Ladder(((4, 1), (6, 1), (8, 1), (10, 1), (12, 1)), head_dim=2)}, "a minimum at the edge is none"),
    ]:
        assert any(said in text for text in warnings(**changes)), said


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: .[tpu]")
def test_a_slice_that_is_not_here_has_memory_time_and_cost(tmp_path):
    pod = machines.Pod("v5e:2x2", price_per_chip_hour=2.0)
    stated = {"sizes": Ladder(((128, 1),), head_dim=64), "batch_multiple": 4, "grid": IsoFlop(budgets=(1e12, 2e12))}
    batch = PowerRule(8, reference=1e12, exponent=1.0, of="flops")
    plan = made(tmp_path, pod, batch_size=batch, **stated)
    small, large = plan["cells"]
    assert (small["batch_size"], large["batch_size"]) == (8, 16)
    assert large["fits"] is True and 0 < large["peak_hbm_bytes"] < large["hbm_bytes"] == 16e9
    # No step is faster than its FLOPs at the peak of four chips.
    assert large["step_seconds"] > large["step_seconds_at_least"] > large["flops"] / large["steps"] / (4 * 197e12)
    assert small["step_seconds"] == pytest.approx(large["step_seconds"] / 2)
    assert plan["machine"] == {"name": "v5e:2x2", "chips": 4, "price_per_chip_hour": 2.0}
    assert plan["total"]["cost"] == pytest.approx(2 * 4 * plan["total"]["predicted_seconds"] / 3600)
    with pytest.raises(StudyError, match="a batch of 6 rows is not split evenly over 4 chips of v5e:2x2: set batch_m"):
        made(tmp_path, pod, batch_size=PowerRule(6), **{**stated, "batch_multiple": 1})
