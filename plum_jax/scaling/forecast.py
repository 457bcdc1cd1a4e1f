"""A sealed forecast: what the held-out runs of a study will reach, written before the first of them runs.

`forecast.json` holds predictions with intervals for every held-out cell and for the best of each held-out budget, two
plain baselines, and what made them: hash of the rows, settings, commit. It is written once and never again: after the
first held-out record there is no forecast any more, only hindsight.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.scaling.analyse import analyse_both, plain
from plum_jax.scaling.bounded_metrics import RateFit
from plum_jax.scaling.loss_analysis import Settings
from plum_jax.scaling.loss_results import Interval, LawFit
from plum_jax.scaling.power_line import tails
from plum_jax.scaling.run_tables import read_runs
from plum_jax.scaling.runs import Runs

FORECAST = "forecast.json"
RESULTS = "results.jsonl"
PLAN = "plan.json"
LAST_POINT = "last point carried forward"
STRAIGHT_LINE = "straight line in log C"
METRICS = ("loss", "recall")


class ForecastError(ValueError):
    """No forecast can be sealed, or the sealed one is not what it says it is."""


@dataclasses.dataclass(frozen=True)
class Cells:
    """Planned runs, arrays of [cells].

    Attributes:
      place: the same for the seeds and the learning-rate trials of one size and budget.
      trial: whether the cell is another learning rate of a cell before it: the best of a place is a mean over seeds.
    """

    name: list[str]
    budget: np.ndarray
    N: np.ndarray
    D: np.ndarray
    C: np.ndarray
    place: np.ndarray
    trial: np.ndarray


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Simulated outcomes of cells and what is expected, [draws, cells] and [cells]."""

    expected: np.ndarray
    outcomes: np.ndarray


def seal_forecast(
    study_dir: epath.PathLike, settings: Settings, commit: str | None, now: datetime.datetime
) -> dict[str, Any]:
    """Writes `STUDY_DIR/forecast.json` and returns its content.

    Args:
      study_dir: with plan.json, and the rows of all runs that are not held out in results.jsonl.
      settings: of the analysis.
      commit: of the code.
      now: when it is sealed.

    Raises:
      ForecastError: a forecast or a held-out record is there already, nothing is held out, or no law can be fitted.
    """
    directory = epath.Path(study_dir)
    path = directory / FORECAST
    if path.exists():
        raise ForecastError(f"{path} is there already; a forecast is sealed once")
    planned = held_out_cells(directory)
    reported = [name for name in planned.name if (directory / "cells" / name / "record.json").exists()]
    if reported:
        raise ForecastError(
            f"held-out runs have reported already ({', '.join(reported[:3])}{', ...' if len(reported) > 3 else ''}): a "
            "forecast after them would be hindsight"
        )
    runs = read_runs(directory / RESULTS)
    content = _forecast(runs, planned, settings)
    content |= {
        "rows": runs.usable("loss")["run"].to_list(),
        "rows_sha256": rows_sha256(directory / RESULTS, planned.name),
        "settings": artifact.describe(settings),
        "commit": commit,
        "sealed_at": now.astimezone(datetime.UTC).isoformat(timespec="seconds"),
    }
    content = plain(content)
    content["seal"] = seal_of(content)
    artifact.write_json(path, content)
    return content


def read_forecast(study_dir: epath.PathLike) -> dict[str, Any]:
    """The sealed forecast.

    Raises:
      ForecastError: there is none, or its content is not what was sealed.
    """
    path = epath.Path(study_dir) / FORECAST
    if not path.exists():
        raise ForecastError(
            f"there is no forecast at {path}: seal it before the held-out runs (gin/run/study_forecast.gin)"
        )
    content = json.loads(path.read_text())
    if content.get("seal") != seal_of(content):
        raise ForecastError(
            f"{path} was changed after it was sealed: its content does not have the hash that it states"
        )
    return content


def seal_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of all but the seal, keys sorted."""
    rest = {key: value for key, value in content.items() if key != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def rows_sha256(results: epath.Path, without: Sequence[str]) -> str:
    """SHA-256 of the rows that may be seen, by name, keys sorted."""
    rows = [json.loads(line) for line in results.read_text().splitlines() if line.strip()]
    seen = sorted((row for row in rows if row["name"] not in set(without)), key=lambda row: row["name"])
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()


def held_out_cells(study_dir: epath.PathLike) -> Cells:
    """The held-out cells of the plan."""
    path = epath.Path(study_dir) / PLAN
    if not path.exists():
        raise ForecastError(f"there is no plan at {path}: run gin/run/study_plan.gin with the study's files first")
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["held_out"]]
    if not cells:
        raise ForecastError(f"{path} holds no cell out; a forecast needs runs that it can be wrong about")
    names = ("budget", "parameters", "tokens", "flops")
    budget, N, D, C = (np.array([cell[name] for cell in cells], float) for name in names)
    _, place = np.unique(np.stack([budget, N], 1), axis=0, return_inverse=True)
    place, seed = place.reshape(-1), np.array([cell["seed"] for cell in cells])
    _, first = np.unique(np.stack([place, seed], 1), axis=0, return_index=True)
    trial = ~np.isin(np.arange(len(cells)), first)
    return Cells([cell["cell_id"] for cell in cells], budget, N, D, C, place, trial)


def _forecast(runs: Runs, cells: Cells, settings: Settings) -> dict[str, Any]:
    """All predictions, as JSON values."""
    kept, loss, rate = analyse_both(runs, settings)
    law = loss.law
    if law is None:
        raise ForecastError(f"no loss law can be fitted, so nothing can be forecast: {loss.methods[0].why_not}")
    fitted = kept.usable("loss")
    generator = np.random.default_rng(settings.seed)
    seed_sd = loss.seed_sd or 0.0
    outcomes = {"loss": _losses(law, cells, seed_sd, generator)}
    about = {"law": dataclasses.asdict(dataclasses.replace(law.fit, descents=None)), "noise": {"loss": seed_sd}}
    if rate is not None:
        about["form"] = {"name": rate.chosen, "why": rate.why}
        (form,) = [form for form in rate.forms if form.form == rate.chosen]
        if form.fit is not None and len(form.fit.draws):
            users = float(np.median(fitted["users"].drop_nulls())) if "users" in fitted.columns else np.inf
            outcomes["recall"] = _rates(form.fit, law, cells, users, rate.seed_sd or 0.0, generator)
    confidence = settings.confidence
    listed = [
        {
            "name": name,
            **{key: float(getattr(cells, key)[i]) for key in ("budget", "N", "D", "C")},
            **{metric: _interval(d.expected[i], d.outcomes[:, i], confidence) for metric, d in outcomes.items()},
        }
        for i, name in enumerate(cells.name)
    ]
    return {
        "confidence": confidence,
        "about": about,
        "cells": listed,
        "best": [_best(cells, budget, outcomes, fitted, confidence) for budget in np.unique(cells.budget)],
    }


def _losses(law: LawFit, cells: Cells, seed_sd: float, generator: np.random.Generator) -> Drawn:
    """Losses of the cells: laws of the draws, and log noise of runs about the law."""
    freedom = max(law.fit.rows - 5, 1)
    sd = max(law.fit.residual_sd * np.sqrt(law.fit.rows / freedom), seed_sd)
    noise = sd * generator.standard_normal((len(law.draws), len(cells.N)))
    return Drawn(law.fit.loss(cells.N, cells.D), law.losses(cells.N, cells.D) * np.exp(noise))


def _rates(
    fit: RateFit, law: LawFit, cells: Cells, users: float, seed_sd: float, generator: np.random.Generator
) -> Drawn:
    """Rates of the cells: forms of the draws on the laws of the same draws, then lack of fit, seeds and counting."""
    expected = fit.rate(cells.N, cells.D, cells.C, law.fit.loss(cells.N, cells.D))
    drawn = fit.drawn_rates(cells.N, cells.D, cells.C, law.losses(cells.N, cells.D))
    binomial = np.clip(drawn * (1 - drawn), 0, 0.25) / users
    sd = np.sqrt(binomial + seed_sd**2 + fit.lack_of_fit_sd**2)
    return Drawn(expected, drawn + sd * generator.standard_normal(drawn.shape))


def _best(
    cells: Cells, budget: float, outcomes: Mapping[str, Drawn], fitted: pl.DataFrame, confidence: float
) -> dict[str, Any]:
    """The best place of a budget (mean over its seeds), with the baselines.

    What is observed is the best of several noisy runs, so what is forecast is the median of the simulated best.
    """
    here = cells.budget == budget
    found: dict[str, Any] = {"budget": float(budget), "baselines": {LAST_POINT: {}, STRAIGHT_LINE: {}}}
    for metric, drawn in outcomes.items():
        pick = np.min if metric == "loss" else np.max
        members = [(cells.place == place) & ~cells.trial for place in np.unique(cells.place[here])]
        simulated = pick(np.stack([drawn.outcomes[:, seeds].mean(1) for seeds in members], 1), 1)
        found[metric] = _interval(float(np.median(simulated)), simulated, confidence)
        last, line = baselines(fitted, metric, float(np.mean(cells.C[here])))
        found["baselines"][LAST_POINT][metric] = last
        found["baselines"][STRAIGHT_LINE][metric] = line
    best = int(np.argmin(np.where(here, outcomes["loss"].expected, np.inf)))
    return found | {"N": float(cells.N[best])}


def baselines(fitted: pl.DataFrame, metric: str, flops: float) -> tuple[float, float]:
    """(best value of the largest fitted budget, straight line in log C through the best of every budget)."""
    group = "budget" if "budget" in fitted.columns else "C"
    rows = fitted.drop_nulls([metric, group])
    means = rows.group_by(group, "N").agg(pl.col(metric).mean(), pl.col("C").mean())
    value = pl.col(metric)
    best = means.group_by(group).agg((value.min() if metric == "loss" else value.max()), pl.col("C").mean()).sort("C")
    last = float(best[metric][-1])
    if len(best) < 2:
        return last, last
    slope, intercept = np.polyfit(np.log(best["C"].to_numpy()), best[metric].to_numpy(), 1)
    return last, float(intercept + slope * np.log(flops))


def _interval(value: float, draws: np.ndarray, confidence: float) -> Interval:
    low, high = np.quantile(draws, tails(confidence))
    return Interval(float(value), float(low), float(high))
