"""A study's directory whose fits are made up from the law that its rows follow: nothing is fitted but parabolas."""

import json

import numpy as np
import polars as pl

from plum_jax.scaling import bounded_forms, design
from plum_jax.scaling.akima import fit_akima
from plum_jax.scaling.analyse import Analysis, Missing, as_json, ledger
from plum_jax.scaling.bounded_metrics import Profile as MissProfile
from plum_jax.scaling.deadweight import Deadweight
from plum_jax.scaling.iso_flop import fit_iso_flop
from plum_jax.scaling.likelihood import Profile
from plum_jax.scaling.loss_analysis import LossAnalysis, Settings, frontier_of_law, iso_flop_points
from plum_jax.scaling.loss_analysis import _of_lines as method_of_lines
from plum_jax.scaling.loss_results import Interval, LawFit, Method
from plum_jax.scaling.parametric_law import ParametricFit
from plum_jax.scaling.rate_analysis import FormAnalysis, RateAnalysis, rate_points
from plum_jax.scaling.rate_selection import Trial
from plum_jax.scaling.run_tables import make_runs
from plum_jax.scaling.sensitivity import Row
from tests.scaling.planted_study import LAW, planted_rows, recall_of

FAILED = {
    "name": "b01-size9-s0",
    "size": "size9",
    "budget": 1e13,
    "status": "diverged",
    "reason": "FloatingPointError: the loss is nan at step 812",
    "held_out": False,
}
EXPONENT = LAW.beta / (LAW.alpha + LAW.beta)


def made_rows(failed=1):
    """Five budgets of seven sizes, the largest held out, one run far off its parabola, failures."""
    rows = planted_rows(budgets=5, sizes=7, seeds=1)
    for row in rows:
        row |= {"study": "made", "commit": "abc123", "machine": "2 x x86_64, cpu", "learning_rate": 0.01}
        row |= {"best_possible_loss": 1.2, "best_possible_recall@10": 0.5, "python": "3.12.1"}
        row["command"] = "plum --gin_file=gin/run/study_run.gin --gin_file=gin/run/study_one_cell.gin --gin.CELL='x'"
    rows[2 * 7 + 3]["loss"] *= 1.3
    return [*rows, *(dict(FAILED, name=f"{FAILED['name']}{i or ''}") for i in range(failed))]


def made_fits(rows, identified=True):
    """What fits.json would hold of them, were the planted law found."""
    runs, settings = make_runs(pl.DataFrame(rows, infer_schema_length=None), source="results.jsonl"), Settings(draws=50)
    table = runs.usable("loss")
    flops = np.geomspace(table["C"].min(), 10 * table["C"].max(), 30)
    found = np.array([np.log(LAW.A), np.log(LAW.B), np.log(LAW.E), LAW.alpha, LAW.beta])
    fit = ParametricFit(LAW.E, LAW.A, LAW.B, LAW.alpha, LAW.beta, 1e-3, "huber", len(table), 0.003)
    draws = found + np.random.default_rng(0).normal(0, [0.1, 0.1, 0.01, 0.005, 0.005], (50, 5))
    law = LawFit(fit, draws, table["run"].to_numpy(), np.ones((50, len(table))), 6.0)
    iso_flop = fit_iso_flop(iso_flop_points(table, "loss"), draws=50)
    akima = fit_akima(iso_flop_points(table, "loss"), 0.003, draws=50)
    width = 0.02 if identified else 0.8
    names = ("E", "A", "B", "alpha", "beta")
    parameters = {
        name: Interval(getattr(fit, name), 0.9 * getattr(fit, name), 1.1 * getattr(fit, name)) for name in names
    }
    methods = (
        Method(
            "parametric law, Huber",
            Interval(EXPONENT, EXPONENT - width, EXPONENT + width),
            Interval(1 - EXPONENT, 1 - EXPONENT - width, 1 - EXPONENT + width),
            parameters,
            frontier_of_law(fit, draws, 6.0, flops, 0.9),
        ),
        method_of_lines("iso-FLOP parabolas", iso_flop, "", flops, settings),
        method_of_lines("iso-FLOP interpolation", akima, "", flops, settings),
        Method("envelope", None, None, {}, None, "no size has runs of two lengths"),
    )
    change = Row("C is 6 N D", len(table), EXPONENT + 0.03, 0.34, 0.3, 1.2, None)
    analysis = Analysis(
        runs,
        settings,
        LossAnalysis(methods, law, tuple(map(_profile, ("E", "alpha", "beta"))), iso_flop, akima, None, 0.003),
        _rates(runs, flops, settings),
        {"iso-FLOP parabolas": Deadweight(1e14, 1e6, Interval(0.02, 0.01, 0.04))},
        [Row("as analysed", len(table), EXPONENT, 0.34, 0.3, 1.2, 0.45), change],
        ledger(runs),
        [Missing("envelope: exponents", "no size has runs of two lengths")],
    )
    return as_json(analysis)


def _profile(name):
    best = getattr(LAW, name)
    values = best * np.geomspace(0.5, 2, 15)
    objective = 1e-3 * (1 + 20 * np.log(values / best) ** 2)
    return Profile(name, values, objective, 0.9 * best, 1.1 * best, 0.9, True, True)


def _rates(runs, flops, settings):
    table = runs.usable("recall")
    points, seed_sd, notes = rate_points(table)
    rate = recall_of(np.array([design.loss(LAW, *design.optimum(LAW, c)) for c in flops]))
    nothing = np.full(len(flops), np.nan)
    two_step, power = bounded_forms.SIGMOID_OF_LOSS.name, bounded_forms.POWER_OF_COMPUTE.name
    profile = MissProfile(np.linspace(0.4, 0.7, 5), np.array([9.0, 2.0, 0.5, 0.4, 0.3]), (0.45, 0.7), False)
    forms = (
        FormAnalysis(
            two_step, None, Trial(two_step, 0.31, 0.30, 0.01, 0.02), None, nothing, rate, rate - 0.02, rate + 0.02
        ),
        FormAnalysis(power, None, None, profile, nothing, 0.9 * rate, 0.8 * rate, rate),
        FormAnalysis("F1", None, None, None, nothing, nothing, nothing, nothing, "too few points"),
    )
    iso_flop = fit_iso_flop(iso_flop_points(table, "recall", points.standard_error), maximise=True, draws=50)
    return RateAnalysis(points, flops, forms, two_step, "the default", iso_flop, None, seed_sd, 0.0, tuple(notes))


def made_forecast(rows):
    """What forecast.json would hold: every held-out loss 0.4% too high, every recall 1% too low."""
    cells = []
    for row in rows:
        if row["held_out"]:
            loss, recall = 1.004 * row["loss"], 0.99 * row["recall@10"]
            keys = {"name": row["name"], "budget": row["budget"], "N": row["parameters"]}
            found = {"loss": (loss, 0.01, 0.01), "recall": (recall, 0.02, 0.03)}
            cells.append(keys | {m: {"value": v, "low": v - a, "high": v + b} for m, (v, a, b) in found.items()})
    best = min(cells, key=lambda cell: cell["loss"]["value"])
    baselines = {
        "last point carried forward": {"loss": 2.1, "recall": 0.33},
        "straight line in log C": {"loss": 1.7, "recall": 0.45},
    }
    entry = {key: best[key] for key in ("budget", "N", "loss", "recall")} | {"baselines": baselines}
    about = {"form": {"name": "F3", "why": "least error"}}
    return {
        "about": about,
        "confidence": 0.9,
        "cells": cells,
        "best": [entry],
        "sealed_at": "2026-01-02T03:04:05+00:00",
    }


def write_made_study(directory, rows=None, fits=True, identified=True):
    """Writes the files of a study of these rows (None: `made_rows`) and returns the directory."""
    rows = made_rows() if rows is None else rows
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if fits:
        (directory / "fits.json").write_text(json.dumps(made_fits(rows, identified)))
        (directory / "forecast.json").write_text(json.dumps(made_forecast(rows)))
    return directory
