"""A table of runs becomes fits.json: the planted law is found by every method, and what is held out is not seen."""

import json

import numpy as np
import polars as pl
import pytest

from plum_jax.scaling import design
from plum_jax.scaling.analyse import analyse, as_json, write_analysis
from plum_jax.scaling.fits_table import fits_text
from plum_jax.scaling.loss_analysis import Settings
from plum_jax.scaling.run_fields import RunsError
from plum_jax.scaling.run_tables import make_runs
from tests.scaling.planted_study import LAW, planted_rows, recall_of

SETTINGS = Settings(draws=60, chance=0.003)
FAILED = {
    "name": "b00-size9-s0",
    "status": "diverged",
    "reason": "loss is nan",
    "loss": None,
    "flops": 1e11,
    "flops_spent": 4e10,
    "wall_seconds": 3.0,
    "held_out": False,
    "recall@10": None,
}


def table(rows):
    return make_runs(pl.DataFrame(rows, infer_schema_length=None))


@pytest.fixture(scope="module")
def analysis():
    return analyse(table([*planted_rows(budgets=5), FAILED]), SETTINGS)


def test_every_method_finds_the_planted_exponent(analysis):
    a = LAW.beta / (LAW.alpha + LAW.beta)
    methods = {method.name: method for method in analysis.loss.methods}
    assert set(methods) >= {"parametric law, Huber", "iso-FLOP parabolas", "iso-FLOP interpolation", "envelope"}
    projected = methods["parametric law, variable projection"]
    assert projected.a.low < a < projected.a.high
    assert projected.a.value == pytest.approx(methods["parametric law, Huber"].a.value, abs=0.03)
    assert {profile.parameter for profile in analysis.loss.profiles} == {"E", "alpha", "beta"}
    for name in ("parametric law, Huber", "iso-FLOP parabolas", "iso-FLOP interpolation"):
        assert methods[name].a.value == pytest.approx(a, abs=0.08), name
        assert methods[name].a.low < methods[name].a.value < methods[name].a.high
    law = methods["parametric law, Huber"]
    assert law.a.low < a < law.a.high
    assert law.parameters["alpha"].low < LAW.alpha < law.parameters["alpha"].high
    best = np.array([design.loss(LAW, *design.optimum(LAW, c)) for c in law.frontier.flops])
    np.testing.assert_allclose(law.frontier.loss, best, rtol=0.02)
    assert analysis.loss.seed_sd == pytest.approx(0.003, rel=0.4)


def test_recall_is_chosen_and_forecast(analysis):
    rate = analysis.rate
    assert rate.chosen.startswith("F4")
    (two_step,) = [form for form in rate.forms if form.form == "F4 two-step, sigmoid of loss"]
    best = recall_of(np.array([design.loss(LAW, *design.optimum(LAW, c)) for c in rate.flops]))
    # Within the largest budget that was fitted, and ten times beyond it.
    np.testing.assert_allclose(two_step.rate, best, atol=0.03)
    assert np.all(two_step.rate_low <= two_step.rate_high)
    assert {form.form[:2] for form in rate.forms} == {"F1", "F2", "F3", "F4", "F5", "li"}


def test_nothing_that_is_held_out_is_seen(analysis):
    rows = [dict(row, loss=row["loss"] * (1 + row["held_out"])) for row in planted_rows(budgets=5)]
    other = analyse(table([*rows, FAILED]), SETTINGS)
    assert other.loss.methods[0].a == analysis.loss.methods[0].a
    assert other.sensitivity[0] == analysis.sensitivity[0]
    assert [form.fit.chi_square for form in other.rate.forms] == [form.fit.chi_square for form in analysis.rate.forms]


def test_conventions_failures_and_waste_are_told(analysis):
    changes = {row.change: row for row in analysis.sensitivity}
    assert changes["N is N_non_embedding"].a == pytest.approx(analysis.sensitivity[0].a, abs=1e-3)
    assert "least squares of log loss" in changes
    assert "every budget weighs the same" in changes
    assert analysis.ledger.runs == {"finished": 40, "held out": 10, "diverged": 1}
    assert analysis.ledger.flops_failed == 4e10
    assert analysis.ledger.reasons == {"loss is nan": 1}
    assert analysis.deadweight["iso-FLOP parabolas"].share.value < 0.02
    assert any("irreducible miss rate" in missing.what for missing in analysis.missing)


def test_the_file_is_plain_json_and_the_text_has_every_method(analysis, tmp_path):
    path = write_analysis(analysis, tmp_path)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    read = json.loads(path.read_text(), parse_constant=refuse)
    assert read == json.loads(json.dumps(as_json(analysis)))
    assert len(read["points"]) == 51
    assert [form["form"] for form in read["rate"]["forms"]] == [form.form for form in analysis.rate.forms]
    np.testing.assert_array_equal(read["law_draws"], analysis.loss.law.draws)
    assert read["loss"]["iso_flop"]["parabolas"][0]["coefficients"]
    assert len(read["loss"]["methods"][0]["frontier"]["N_low"]) == len(read["loss"]["methods"][0]["frontier"]["flops"])
    text = fits_text(analysis)
    for method in read["loss"]["methods"]:
        assert method["name"] in text
    assert "not identified:" in text


def test_a_table_without_runs_says_what_became_of_them():
    with pytest.raises(RunsError, match="no finished run .* 1 diverged"):
        analyse(table([FAILED | {"parameters": 1, "tokens": 1}]))
