"""How a sealed forecast did: signed errors, what was inside its interval, and the two plain baselines beside it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.scaling.analyse import plain
from plum_jax.scaling.forecast import METRICS, RESULTS, ForecastError, held_out_cells, read_forecast, rows_sha256
from plum_jax.scaling.run_tables import read_runs

SCORE = "forecast_score.json"


@dataclasses.dataclass(frozen=True)
class Scored:
    """One prediction beside what came; `error` is predicted - observed."""

    what: str
    metric: str
    predicted: float
    low: float
    high: float
    observed: float
    error: float
    inside: bool


@dataclasses.dataclass(frozen=True)
class Score:
    """All of a forecast.

    Attributes:
      cells: every held-out run that finished.
      best: the best of each held-out budget.
      baseline_errors: of the best, baseline -> metric -> predicted - observed, averaged over budgets in absolute value.
      forecast_errors: the same of the forecast, metric -> value.
      coverage: metric -> share of the cells inside; the intervals' level is `confidence`.
      waiting: held-out cells without a record.
      failed: held-out cells that did not finish, with their status.
      rows_as_sealed: whether the rows that the forecast was fitted to are still the same.
    """

    cells: tuple[Scored, ...]
    best: tuple[Scored, ...]
    baseline_errors: dict[str, dict[str, float]]
    forecast_errors: dict[str, float]
    coverage: dict[str, float]
    confidence: float
    waiting: tuple[str, ...]
    failed: dict[str, str]
    rows_as_sealed: bool


def score_forecast(study_dir: epath.PathLike) -> Score:
    """Scores `forecast.json` by the held-out rows of results.jsonl and writes `forecast_score.json`.

    Raises:
      ForecastError: no forecast, one that was changed, or no held-out run that finished.
    """
    directory = epath.Path(study_dir)
    forecast = read_forecast(directory)
    planned = held_out_cells(directory)
    runs = read_runs(directory / RESULTS)
    finished = runs.usable("loss", held_out=True)
    if finished.is_empty():
        raise ForecastError(f"none of the {len(planned.name)} held-out runs has finished: nothing can be scored yet")
    seen = runs.table.filter(pl.col("held_out"))
    failed = seen.filter(pl.col("status") != "finished")
    cells = _cells(forecast, finished)
    best, baselines = _best(forecast, finished)
    score = Score(
        cells=tuple(cells),
        best=tuple(best),
        baseline_errors=baselines,
        forecast_errors={m: _mean([abs(s.error) for s in best if s.metric == m]) for m in METRICS},
        coverage={m: _mean([s.inside for s in cells if s.metric == m]) for m in METRICS},
        confidence=forecast["confidence"],
        waiting=tuple(sorted(set(planned.name) - set(seen["run"]))),
        failed=dict(failed.select("run", "status").iter_rows()),
        rows_as_sealed=rows_sha256(directory / RESULTS, planned.name) == forecast["rows_sha256"],
    )
    artifact.write_json(directory / SCORE, plain(score))
    return score


def score_text(score: Score) -> str:
    """What a terminal shows."""
    lines = []
    for scored in score.best:
        mark = "inside" if scored.inside else "OUTSIDE"
        lines.append(
            f"{scored.what} {scored.metric}: predicted {scored.predicted:.4f} [{scored.low:.4f}, {scored.high:.4f}], "
            f"observed {scored.observed:.4f}, error {scored.error:+.4f}, {mark}"
        )
    for metric in METRICS:
        if np.isfinite(score.forecast_errors[metric]):
            others = ", ".join(f"{name} {errors[metric]:.4f}" for name, errors in score.baseline_errors.items())
            lines.append(f"mean absolute error of the best {metric}: {score.forecast_errors[metric]:.4f}; {others}")
        if np.isfinite(score.coverage[metric]):
            count = sum(s.metric == metric for s in score.cells)
            lines.append(
                f"{metric}: {100 * score.coverage[metric]:.0f}% of {count} runs inside their "
                f"{100 * score.confidence:g}% intervals"
            )
    lines += [f"failed: {name} ({status})" for name, status in score.failed.items()]
    if score.waiting:
        lines.append(f"{len(score.waiting)} held-out runs have no record yet")
    if not score.rows_as_sealed:
        lines.append("NOTE: the rows that the forecast was made from are not those of results.jsonl any more")
    return "\n".join(lines)


def _cells(forecast: dict[str, Any], finished: pl.DataFrame) -> list[Scored]:
    rows = {row["run"]: row for row in finished.iter_rows(named=True)}
    return [
        _scored(cell["name"], metric, cell[metric], rows[cell["name"]][metric])
        for cell in forecast["cells"]
        for metric in METRICS
        if metric in cell and cell["name"] in rows and rows[cell["name"]].get(metric) is not None
    ]


def _best(forecast: dict[str, Any], finished: pl.DataFrame) -> tuple[list[Scored], dict[str, dict[str, float]]]:
    """The best place of each budget that has finished runs, and the baselines' mean absolute errors."""
    best: list[Scored] = []
    errors: dict[str, dict[str, list[float]]] = {}
    for entry in forecast["best"]:
        here = finished.filter((pl.col("budget") / entry["budget"] - 1).abs() < 1e-6)
        for metric in METRICS:
            if metric not in entry or metric not in here.columns or here[metric].drop_nulls().is_empty():
                continue
            keys = [key for key in ("N", "learning_rate") if key in here.columns]
            means = here.group_by(keys).agg(pl.col(metric).mean())[metric].to_numpy()
            observed = float(means.min() if metric == "loss" else means.max())
            best.append(_scored(f"best at {entry['budget']:.3g} FLOPs", metric, entry[metric], observed))
            for name, values in entry["baselines"].items():
                errors.setdefault(name, {}).setdefault(metric, []).append(abs(values[metric] - observed))
    means_of = {name: {m: _mean(of.get(m, [])) for m in METRICS} for name, of in errors.items()}
    return best, means_of


def _scored(what: str, metric: str, interval: dict[str, float], observed: float) -> Scored:
    predicted, low, high = interval["value"], interval["low"], interval["high"]
    return Scored(what, metric, predicted, low, high, observed, predicted - observed, low <= observed <= high)


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else float("nan")
