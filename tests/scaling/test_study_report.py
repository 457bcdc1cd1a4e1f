"""The report of a scaling study: every figure and table is on the page, what is missing is said, nothing is fetched."""

import json
import re

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import PathCollection

from plum_jax import artifact
from plum_jax.report import page_svg
from plum_jax.scaling import study_tables
from plum_jax.scaling.headlines import headlines
from plum_jax.scaling.plots import (
    conventions,
    draws,
    frontier,
    gallery,
    held_out,
    iso_flop,
    learning_rate,
    ledger,
    look,
    loss,
    recall,
    residuals,
)
from plum_jax.scaling.report import write_study_report
from plum_jax.scaling.study_results import read_study_results
from tests.report.test_page import Page
from tests.scaling.made_study import EXPONENT, FAILED, made_rows, write_made_study
from tests.scaling.planted_study import LAW


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_made_study(tmp_path_factory.mktemp("studies") / "made")


@pytest.fixture(scope="module")
def results(study):
    return read_study_results(study)


def page_of(directory):
    """The report's text and words; well formed, and complete in itself."""
    text = write_study_report(directory, formats=()).read_text()
    page = Page(text)
    assert "http" not in text.replace("http-equiv", ""), "the page names an address"
    assert not [tag for tag, name, value in page.attributes if name in ("src", "href") and not value.startswith("#")]
    return text, " ".join(page.words)


def lines_of(axes, linestyle):
    return [line for line in axes.lines if line.get_linestyle() == linestyle and len(line.get_xdata()) > 50]


def test_the_page_says_exponents_with_intervals_and_what_is_not_known(study):
    text, words = page_of(study)
    assert f"C^{EXPONENT:.2f} (90% interval {EXPONENT - 0.02:.2f} to {EXPONENT + 0.02:.2f})" in words
    assert "Envelope: exponents: no size has runs of two lengths" in words
    assert FAILED["reason"] in words
    assert "The sealed forecast of recall@10 is by F3 (least error)" in words
    assert "would now be by F4 two-step, sigmoid of loss (the default)" in words
    assert "Forecast for 10¹⁵ FLOPs, sealed 2026-01-02: best loss" in words
    assert "gin/run/study_run.gin" in words
    assert "study_one_cell" not in words, "the command of a cell is not that of the study"
    # All but the learning rates, of which such a study has one.
    assert text.count("<svg") == text.count("<figcaption") == 13
    assert not re.search(
        r"#[0-9a-f]{6}", "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL)).replace("#ffffff", "")
    ), "a colour that the page's theme does not set"


def test_wide_intervals_are_told_in_place_of_a_number(tmp_path):
    found = headlines(read_study_results(write_made_study(tmp_path / "made", identified=False)))
    wide = f"anything between {EXPONENT - 0.8:.2f} and {EXPONENT + 0.8:.2f} fits"
    assert [wide in sentence for sentence in found.not_identified].count(True) == 1
    assert not [sentence for sentence in found.said if "parametric law" in sentence]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "no run is done"),
        ([FAILED, dict(FAILED, name="other")], "2 runs are done and none of them finished"),
        (made_rows()[:3], "3 runs have finished; nothing is fitted yet"),
    ],
)
def test_a_study_of_which_little_is_there_has_a_page(tmp_path, rows, sentence):
    write_made_study(tmp_path / "study", rows, fits=False)
    (tmp_path / "study" / "plan.json").write_text(json.dumps({"cells": [{"cell_id": "b07-x-s0", "held_out": True}]}))
    _, words = page_of(tmp_path / "study")
    assert sentence in words
    assert "fits.json" in words
    assert "b07-x-s0 held out, not run" in words


def test_other_people_s_runs_have_a_page_from_fits_alone(study, tmp_path):
    (tmp_path / "fits.json").write_text((study / "fits.json").read_text())
    _, words = page_of(tmp_path)
    assert f"C^{EXPONENT:.2f}" in words
    assert "forecast.json" not in words


def test_runs_that_are_newer_than_the_fits_are_named(tmp_path):
    directory = write_made_study(tmp_path / "made")
    with (directory / "results.jsonl").open("a") as file:
        file.write(json.dumps(dict(made_rows()[0], name="later")) + "\n")
    (sentence,) = [s for s in read_study_results(directory).missing if s.startswith("fits.json")]
    assert "made before 1 of the runs were done" in sentence


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(artifact.ArtifactError, match="expected the directory of a study"):
        write_study_report(tmp_path / "nothing")


def test_iso_flop_curves_have_one_curve_a_budget_stars_and_crosses(results):
    parabolas = results.parabolas()
    figure = iso_flop.iso_flop_curves(results.points, parabolas)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert len(lines_of(axes, "-")) == sum(p["accepted"] for p in parabolas) == 4
    assert [run for p in parabolas for run in p["rejected_runs"]] == ["b02-size3-s0"]
    crosses = [
        c for c in axes.collections if isinstance(c, PathCollection) and len(c.get_offsets()) and c.get_sizes()[0] == 16
    ]
    assert [c.get_offsets().tolist() for c in crosses] == [
        [[made_rows()[17]["parameters"], pytest.approx(made_rows()[17]["loss"])]]
    ]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[:5] == ["10¹⁵", "1.8×10¹⁴", "3.2×10¹³", "5.6×10¹²", "10¹²"]
    assert {"hollow: held out", "run not fitted", "optimum, interval"} <= set(labels)


def test_a_refused_parabola_is_dashed_and_has_no_optimum(results):
    parabolas = [dict(p, accepted=False, reason="bent the wrong way") for p in results.parabolas()]
    axes = iso_flop.iso_flop_curves(results.points, parabolas).axes[0]
    assert not lines_of(axes, "-")
    assert len([line for line in axes.lines if len(line.get_xdata()) > 50]) == 4


def test_the_optimum_has_a_band_for_each_method_and_the_held_out_star(results):
    figure = frontier.optimum_against_compute(results.methods(), results.parabolas(), results.optima(), results.points)
    for axes, field in zip(figure.axes, "ND", strict=True):
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        stars = [c for c in axes.collections if isinstance(c, PathCollection) and c.get_sizes().tolist() == [110]]
        held_out = [row for row in made_rows() if row["held_out"]]
        best = min(held_out, key=lambda row: row["loss"])
        value = best["parameters"] if field == "N" else best["tokens"]
        assert stars[0].get_offsets().tolist() == [[pytest.approx(best["flops"]), pytest.approx(value)]]


def star_of(axes, size):
    stars = [c for c in axes.collections if isinstance(c, PathCollection) and c.get_sizes().tolist() == [size]]
    return stars[0].get_offsets().tolist()[0]


def best_held_out():
    return min((row for row in made_rows() if row["held_out"]), key=lambda row: row["loss"])


def test_loss_against_compute_has_the_law_its_floor_the_best_possible_and_the_star(results):
    axes = loss.loss_against_compute(
        results.points, results.law(), forecast=results.forecast["best"], best_possible=1.1
    ).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    levels = [
        line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2
    ]
    assert 1.1 in levels
    assert LAW.E in levels
    assert star_of(axes, 130) == [pytest.approx(best_held_out()["flops"]), pytest.approx(best_held_out()["loss"])]
    diamonds = [line for line in axes.lines if line.get_marker() == "D"]
    assert [line.get_ydata()[0] for line in diamonds] == [pytest.approx(1.004 * best_held_out()["loss"])]


def test_the_frontier_s_reducible_loss_is_straight(results):
    axes = loss.reducible_loss(results.points, results.law()).axes[0]
    (curve,) = [line for line in axes.lines if line.get_linestyle() == "-"]
    slopes = np.diff(np.log(curve.get_ydata())) / np.diff(np.log(curve.get_xdata()))
    # Both terms fall as C^-(alpha beta / (alpha + beta)) along the frontier.
    np.testing.assert_allclose(slopes, -LAW.alpha * LAW.beta / (LAW.alpha + LAW.beta), rtol=1e-6)


def test_residuals_are_the_planted_noise(results):
    table = residuals.residuals_of(results.points, results.law()["parameters"])
    off = table.filter(pl.col("run") == "b02-size3-s0")["residual"][0]
    assert off == pytest.approx(np.log(1.3), abs=0.01)
    assert table.filter(pl.col("run") != "b02-size3-s0")["residual"].abs().max() < 0.012
    figure = residuals.residual_plots(results.points, results.law()["parameters"], seed_sd=0.003)
    assert [axes.get_xlabel() for axes in figure.axes] == ["parameters N", "tokens D", "compute C (FLOPs)", "seed"]


def test_recall_has_the_chosen_form_s_band_and_the_best_possible(results):
    rate = results.fits["rate"]
    axes = recall.recall_against_compute(
        results.points, rate["flops"], rate["forms"], rate["chosen"], best_possible=results.best_possible("recall")
    ).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert f"{rate['chosen']} (90%)" in labels
    assert "best possible, 0.5" in labels
    assert "F1" not in labels, "a form that could not be fitted"
    most = max(row["recall@10"] for row in made_rows() if row["held_out"])
    assert star_of(axes, 130)[1] == pytest.approx(most)


def test_many_sizes_share_their_colours(results):
    groups = recall.size_groups(results.points.drop_nulls("N"))
    assert len(groups) <= 6
    assert sum(len(runs) for _, runs in groups) == 35


def test_predicted_against_observed_has_every_held_out_run_and_both_baselines(results):
    figure = held_out.predicted_against_observed(results.forecast, results.points)
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "observed held-out loss (nats a token)",
        "observed recall@10",
    ]
    for axes in figure.axes:
        assert len([line for line in axes.lines if line.get_marker() == "o"]) == 7
    assert {"last point carried forward", "straight line in log C"} <= {
        text.get_text() for text in figure.legends[0].get_texts()
    }


@pytest.mark.parametrize(("middle", "best"), [(0.01, 0.01), (1.0, None)])
def test_an_inner_best_learning_rate_is_told_from_one_at_the_edge(middle, best):
    rows = [dict(made_rows()[0], learning_rate=r, name=str(r)) for r in (0.0025, 0.005, 0.01, 0.02, 0.04)]
    points = pl.DataFrame(
        [
            {"N": 1e4, "budget": 1e12, "learning_rate": r["learning_rate"], "status": "finished"}
            | {"loss": 3 + np.log(r["learning_rate"] / middle) ** 2}
            for r in rows
        ]
    )
    (cell,) = learning_rate.trials_of(points)
    assert cell.best == (None if best is None else pytest.approx(best))
    assert len(learning_rate.learning_rate_curves([cell]).axes[0].lines) == 1


def test_the_bootstrap_and_the_conventions_are_drawn(results):
    law = results.law()
    figure = draws.bootstrap_pairs(results.fits["law_draws"], law["parameters"], law["a"]["value"])
    assert len([axes for axes in figure.axes if axes.axison]) == 10
    axes = conventions.convention_forest(results.fits["sensitivity"], law["a"]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["as analysed", "C is 6 N D"]


def test_a_score_is_told_with_both_baselines(study, tmp_path):
    (tmp_path / "study").mkdir()
    for name in ("results.jsonl", "fits.json", "forecast.json"):
        (tmp_path / "study" / name).write_text((study / name).read_text())
    scored = {"what": "best at 1e+15 FLOPs", "metric": "recall", "predicted": 0.4, "low": 0.38, "high": 0.42}
    score = {
        "best": [scored | {"observed": 0.43, "error": -0.03, "inside": False}],
        "cells": [],
        "confidence": 0.9,
        "baseline_errors": {"last point carried forward": {"recall": 0.1, "loss": None}},
    }
    (tmp_path / "study" / "forecast_score.json").write_text(json.dumps(score))
    results = read_study_results(tmp_path / "study")
    (sentence,) = [s for s in headlines(results).said if s.startswith("Forecast before")]
    assert (
        "it came out 0.4300, OUTSIDE the interval (error -0.0300; last point carried forward is off by 0.1000)"
        in sentence
    )
    (row,) = study_tables.forecast_table(results).rows
    assert row[-1] == "last point carried forward 0.3300; straight line in log C 0.4500"


def test_hoffmann_s_line_is_theirs():
    # 2203.15556, table A3: 67B parameters and 1.5T tokens for the compute of Gopher, within what rounding allows.
    N, D = frontier.hoffmann_optimum(np.array([5.76e23]))
    assert 6 * N[0] * D[0] == pytest.approx(5.76e23)
    assert 3e10 < N[0] < 5e10


def test_the_ledger_counts_every_run(results):
    spent = ledger.with_spent(results.points)
    assert spent["fate"].value_counts().sort("fate").rows() == [("failed", 1), ("fitted", 28), ("held out", 7)]
    assert spent.filter(pl.col("fate") == "failed")["spent"].to_list() == [1e13]


def test_the_colours_are_the_page_s():
    light = page_svg.STYLE_SHEET.read_text().split("}")[0]
    for colour, variable in look.PAGE_COLOURS.items():
        assert f"{variable[4:-1]}: {colour};" in light


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(1.9, 3.1, [2.0, 2.25, 2.5, 2.75, 3.0]), (8.0, 2.5e3, [10, 30, 100, 300, 1000]), (1e3, 1e15, None)],
)
def test_ticks_of_a_logarithmic_axis_are_round_and_few(low, high, ticks):
    found = look.log_ticks(low, high)
    assert 2 <= len(found) <= 8
    if ticks:
        assert found == pytest.approx(ticks)


def test_numbers_read_well():
    assert [look.readable(v) for v in (5992, 1.2e6, 70e9, 999_999, 12)] == ["5.99k", "1.2M", "70B", "1M", "12"]
    assert [look.power_of_ten(v) for v in (1e21, 2.5e10, 9.99e11, 3e-3)] == ["10²¹", "2.5×10¹⁰", "10¹²", "3×10⁻³"]


def test_figures_are_written_in_three_formats_and_the_same_twice(results, tmp_path):
    made = [gallery.Picture("ledger", "", ledger.compute_ledger(results.points))]
    look.settle(made[0].figure)
    first = {path.name: path.read_bytes() for path in gallery.save_pictures(made, tmp_path / "a")}
    second = {path.name: path.read_bytes() for path in gallery.save_pictures(made, tmp_path / "b")}
    assert sorted(first) == ["ledger.pdf", "ledger.png", "ledger.svg"]
    assert first == second
    assert b"/FontFile2" in first["ledger.pdf"], "the font is not in the file"
    assert b"<text" not in first["ledger.svg"], "letters that need a font"
