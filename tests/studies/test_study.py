"""What a study states and what follows: steps from budgets, rules, names, bounds, and what it refuses."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_study import decoder, study, with_schedule

from plum_jax.evaluation.scalable import DataFacts
from plum_jax.studies.grid import Horizons, IsoFlop, flops_per_position
from plum_jax.studies.places import Cell, LeftOut, StudyError
from plum_jax.studies.rules import Ladder, PowerRule, Size
from plum_jax.studies.solve import cells_of, solve
from plum_jax.training.schedules import WarmupStableDecay

DATA = DataFacts(vocab_size=100, length=8, unique_tokens=20_000, fill=0.5)
ONE = (Size("a", decoder()),)
SYSTEM = study().of_size(*ONE)
# decoder(): d 16, 2 layers, 2 query heads and 1 key-value head of 8, MLP 48, on rows of 8 tokens, vocabulary 100.
# A token's matrices: q 16x16, k and v 16x8 each, output 16x16, MLP 3 x 16x48, in 2 layers; head 16 x 100.
MATRICES = 2 * (256 + 2 * 128 + 256 + 3 * 768) + 1600
# Scores and weighted values: of 2 heads of 8 in 2 layers, over (8 + 1) / 2 keys on average.
ATTENTION = 2 * 2 * (2 * 8) * 4.5
EXACT = 3 * 2 * (MATRICES + ATTENTION)  # backward is twice forward; 2 a multiply-add
PARAMETERS = MATRICES + 2 * 2 * 16 + 16  # and the scales of two norms a layer, and of the last


def test_flops_of_a_position_are_those_counted_by_hand():
    assert flops_per_position(SYSTEM, DATA, "exact") == EXACT
    assert flops_per_position(SYSTEM, DATA, "6nd") == 6 * PARAMETERS


@pytest.mark.parametrize(("convention", "cost"), [("exact", EXACT), ("6nd", 6 * PARAMETERS)])
def test_steps_spend_the_budget_by_its_convention(convention, cost):
    batch = 4 * DATA.length
    grid = IsoFlop(budgets=(cost * batch * 300,), convention=convention)
    (cell,) = cells_of(study(sizes=ONE, grid=grid, batch_size=PowerRule(base=4)), DATA)
    assert (cell.steps, cell.batch_tokens) == (300, batch)
    assert cell.flops == 300 * batch * EXACT
    assert cell.flops_6nd == 300 * batch * 6 * PARAMETERS


@settings(max_examples=60, deadline=None)
@given(
    budget=st.floats(1e7, 1e13),
    batch=st.floats(1, 500),
    width=st.sampled_from([16, 32, 64]),
    layers=st.integers(1, 4),
    convention=st.sampled_from(["exact", "6nd"]),
    length=st.sampled_from([8, 128]),
)
def test_a_cell_is_within_a_hundredth_of_its_budget_or_there_is_none(budget, batch, width, layers, convention, length):
    stated = study(
        sizes=Ladder(((width, layers),), head_dim=8), grid=IsoFlop((budget,), convention), batch_size=PowerRule(batch)
    )
    data = dataclasses.replace(DATA, length=length)
    try:
        (cell,) = cells_of(stated, data)
    except StudyError as error:
        # Steps of a fiftieth of the budget or less always come near enough.
        one_step = flops_per_position(stated.of_size(stated.all_sizes[0]), data, convention) * round(batch) * length
        assert budget / one_step < 50, error
        return
    spent = cell.flops if convention == "exact" else cell.flops_6nd
    assert abs(spent / budget - 1) <= 0.01


def test_a_budget_that_whole_steps_miss_is_refused_with_what_to_change():
    grid = IsoFlop(budgets=(EXACT * DATA.length * 4 * 10.5,))
    with pytest.raises(StudyError, match=r"size a at .*10 steps miss the budget by -4.8%, more than 1%: lower batch"):
        cells_of(study(sizes=ONE, grid=grid, batch_size=PowerRule(base=4)), DATA)


def test_horizons_are_tokens_trained_on_or_so_many_a_parameter():
    def tokens(cell: Cell) -> float:
        return cell.steps * cell.batch_tokens * DATA.fill

    one, two = cells_of(study(sizes=ONE, grid=Horizons(tokens=(8_000, 16_000))), DATA)
    assert (tokens(one), tokens(two)) == (8_000, 16_000)
    assert (one.cell_id, two.cell_id, one.horizon) == ("t00-a-s0", "t01-a-s0", 8_000)
    assert two.budget == pytest.approx(two.flops)
    (ratio,) = cells_of(study(sizes=ONE, grid=Horizons(tokens_per_parameter=(20,))), DATA)
    assert tokens(ratio) == pytest.approx(20 * PARAMETERS, rel=0.01)


def test_places_out_of_bounds_are_left_out_and_said():
    sizes = (Size("small", decoder(16)), Size("large", decoder(64)))
    stated = study(sizes=sizes, grid=IsoFlop(budgets=(2e9, 5e10), min_steps=500, max_epochs=20))
    left = [(p.size, p.group, p.reason) for p in solve(stated, DATA) if isinstance(p, LeftOut)]
    assert left == [("large", 0, "fewer than min_steps 500"), ("small", 1, "more than max_epochs 20")]
    assert [cell.size for cell in cells_of(stated, DATA)] == ["small", "large"]
    with pytest.raises(StudyError, match=r"no cell is left by the grid's bounds \(fewer than min_steps 5000000\)"):
        cells_of(study(grid=IsoFlop(budgets=(2e9,), min_steps=5_000_000)), DATA)


def test_at_each_budget_the_sizes_nearest_to_the_guess():
    ladder = Ladder(tuple((width, 1) for width in (8, 16, 32, 64)), head_dim=8)
    guess = PowerRule(base=3000, reference=1e10, exponent=1.0, of="flops")
    stated = study(sizes=ladder, grid=IsoFlop(budgets=(1e10, 2e10), nearest=2, optimum=guess))
    found = {(cell.group, cell.size) for cell in cells_of(stated, DATA)}
    # total parameters with a vocabulary of 100: 1,632, 4,752, 15,456 and 54,720
    assert found == {(0, "d008x1"), (0, "d016x1"), (1, "d016x1"), (1, "d032x1")}


def test_rules_give_rate_and_batch_of_each_cell():
    rate = PowerRule(base=0.0047, reference=108e6, exponent=-1 / 3)
    assert rate(parameters=108e6 * 8, tokens=1, flops=1) == pytest.approx(0.0047 / 2)
    stated = study(
        sizes=ONE,
        grid=IsoFlop(budgets=(1e9, 1e10)),
        learning_rate=PowerRule(1e-3, reference=PARAMETERS / 4, exponent=0.5),
        batch_size=PowerRule(4, reference=1e9, exponent=1 / 3, of="flops"),
        learning_rate_factors=(0.5, 1.0, 2.0),
        seeds_at=((0, 1), (0,)),
        warmup_share=0.25,
    )
    cells = cells_of(stated, DATA)
    assert [cell.cell_id for cell in cells if cell.group == 1] == ["b01-a-s0-lr0.5", "b01-a-s0", "b01-a-s0-lr2"]
    assert [cell.seed for cell in cells] == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert [cell.learning_rate for cell in cells[:3]] == pytest.approx([1e-3, 2e-3, 4e-3])
    assert {(cell.group, cell.batch_size) for cell in cells} == {(0, 4), (1, 9)}
    training = stated.system_of(cells[-1]).training
    assert (training.steps, training.seed) == (cells[-1].steps, 0)
    assert training.optimizer.schedule.peak == pytest.approx(4e-3)
    assert training.optimizer.schedule.warmup_steps == round(cells[-1].steps / 4)
    assert training.evaluation_period == 0 and training.select_by == ""


def test_the_largest_group_is_held_out_unless_others_are_named():
    budgets = (1e10, 4e10, 2e10)

    def held(**changes) -> set[float]:
        stated = study(sizes=ONE, grid=IsoFlop(budgets=budgets), **changes)
        return {cell.budget for cell in cells_of(stated, DATA) if cell.held_out}

    assert held() == {4e10}
    assert held(held_out=()) == set()
    assert held(held_out=(2e10, 4e10)) == {2e10, 4e10}


def test_a_new_budget_changes_no_old_cell():
    before = cells_of(study(sizes=ONE, grid=IsoFlop(budgets=(1e10, 4e10)), held_out=()), DATA)
    after = cells_of(study(sizes=ONE, grid=IsoFlop(budgets=(1e10, 4e10, 2e10)), held_out=()), DATA)
    assert set(before) < set(after)
    assert [cell.cell_id for cell in after] == ["b00-a-s0", "b02-a-s0", "b01-a-s0"], "the smallest budget first"


def test_width_transfer_sets_optimizer_and_logits():
    stated = study(base_d_model=16, sizes=Ladder(((16, 1), (64, 1)), head_dim=8), grid=IsoFlop((1e9,)))
    base, wide = stated.all_sizes
    assert (base.decoder.logits_scale, wide.decoder.logits_scale) == (1.0, 0.5)
    cell = cells_of(stated, DATA)[0]
    assert stated.system_of(cell).training.optimizer.width_transfer.base_d_model == 16


def test_a_decay_is_its_share_of_the_steps():
    stated = study(sizes=ONE, pipeline=with_schedule(WarmupStableDecay()), decay_share=0.25)
    cell = cells_of(stated, DATA)[0]
    assert stated.system_of(cell).training.optimizer.schedule.decay_steps == cell.decay_steps == round(cell.steps / 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": (Size("a", decoder()), Size("a", decoder(32)))}, r"sizes of different names, got \['a', 'a'\]"),
        ({"held_out": (3e8,)}, r"held_out names \[300000000.0\], which the grid does not have"),
        ({"seeds_at": ((0,),)}, "seeds_at has 1 entries, expected one for each of the 2 groups"),
        ({"warmup_share": 0.9, "decay_share": 0.3}, "must fit into a run"),
    ],
)
def test_a_study_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(StudyError, match=message):
        study(**changes)


def test_rules_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="expected `of` among .*, got 'size'"):
        PowerRule(base=1.0, of="size")
    with pytest.raises(ValueError, match="different numbers above 0"):
        IsoFlop(budgets=(1e9, 1e9))
    with pytest.raises(ValueError, match="nearest and optimum go together"):
        IsoFlop(budgets=(1e9,), nearest=2)
    with pytest.raises(ValueError, match="tokens or tokens_per_parameter, one of the two"):
        Horizons(tokens=(1e6,), tokens_per_parameter=(20,))
    with pytest.raises(ValueError, match="d_model 20 does not divide into heads of 8"):
        Ladder(((20, 1),), head_dim=8).sizes()
