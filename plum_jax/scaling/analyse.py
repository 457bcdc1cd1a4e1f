"""A table of runs to `fits.json`: every method side by side, recall, conventions, waste; and what is not identified.

Layout of `fits.json` (schema 1): docs/scaling_studies.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.scaling.bounded_forms import Form
from plum_jax.scaling.deadweight import Deadweight, deadweight
from plum_jax.scaling.loss_analysis import AHEAD, FRONTIER_VALUES, LossAnalysis, Settings, analyse_loss
from plum_jax.scaling.rate_analysis import RateAnalysis, analyse_rate
from plum_jax.scaling.runs import Runs
from plum_jax.scaling.sensitivity import Row, sensitivity

FITS = "fits.json"
SCHEMA = 1
# Fields of dataclasses that are for further computation and not for a file.
NOT_WRITTEN = ("draws", "run_names", "counts", "descents", "theta", "limits")


@dataclasses.dataclass(frozen=True)
class Missing:
    """What a reader would expect and does not get."""

    what: str
    why: str


@dataclasses.dataclass(frozen=True)
class Ledger:
    """Compute of the table: spent on runs that finished, on runs that failed, on runs that no fit uses.

    Attributes:
      runs: rows by what became of them.
      flops_finished: of finished runs, a shared trunk counted once; those of a failed run where its row has them.
      flops_failed: of the others.
      flops_left_out: of finished runs that were left out of the fits.
      wall_seconds: by status.
      reasons: why runs failed -> how many.
    """

    runs: dict[str, int]
    flops_finished: float
    flops_failed: float
    flops_left_out: float
    wall_seconds: dict[str, float]
    reasons: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Everything about a table of runs.

    Attributes:
      runs: with what was left out marked.
      settings: how.
      loss: all methods.
      rate: of recall; None without it.
      deadweight: of the sizes that the other methods would choose at the largest budget, by the parametric law.
      sensitivity: exponents under other conventions.
      ledger: compute spent.
      missing: what is not identified, and why.
    """

    runs: Runs
    settings: Settings
    loss: LossAnalysis
    rate: RateAnalysis | None
    deadweight: dict[str, Deadweight]
    sensitivity: list[Row]
    ledger: Ledger
    missing: list[Missing]


def analyse(runs: Runs, settings: Settings | None = None) -> Analysis:
    """Fits everything that the table allows, without the held-out runs.

    Raises:
      RunsError: no finished run with N, D, C and loss.
    """
    settings = settings or Settings()
    runs = runs.with_checkpoints(settings.checkpoints)
    if "budget" not in runs.table.columns and settings.budget_tolerance is not None:
        runs = runs.with_budgets_by_flops(settings.budget_tolerance)
    fitted, loss, rate = analyse_both(runs, settings)
    C = fitted.usable("loss")["C"].to_numpy()
    return Analysis(
        runs=fitted,
        settings=settings,
        loss=loss,
        rate=rate,
        deadweight=_deadweight(loss, float(C.max()), settings.confidence),
        sensitivity=sensitivity(runs, settings),
        ledger=ledger(fitted),
        missing=_missing(loss, rate),
    )


def analyse_both(runs: Runs, settings: Settings) -> tuple[Runs, LossAnalysis, RateAnalysis | None]:
    """The runs as they were fitted, loss and recall: what a forecast needs.

    Raises:
      RunsError: as `analyse`.
    """
    fitted = runs.with_best_learning_rates() if settings.best_learning_rates else runs
    if settings.drop_largest_losses:
        fitted = fitted.without_largest_losses(settings.drop_largest_losses)
    fitted.require("loss")
    loss = analyse_loss(fitted, settings)
    C = fitted.usable("loss")["C"].to_numpy()
    flops = np.geomspace(C.min(), C.max() * AHEAD, FRONTIER_VALUES)
    return fitted, loss, analyse_rate(fitted, loss.law, settings, flops)


def write_analysis(analysis: Analysis, directory: epath.PathLike) -> epath.Path:
    """Writes `fits.json` and returns its path."""
    path = epath.Path(directory) / FITS
    artifact.write_json(path, as_json(analysis))
    return path


def as_json(analysis: Analysis) -> dict[str, Any]:
    """The content of `fits.json`; a value that is not there or not finite is null."""
    runs = analysis.runs
    head = {
        "schema": SCHEMA,
        "source": runs.source,
        "conventions": {
            "N": runs.parameter_convention,
            "C": runs.flops_convention,
            "flops_per_nd": runs.flops_per_nd,
        },
        "notes": runs.notes,
        "points": runs.table.to_dicts(),
        # (log A, log B, log E, alpha, beta) of each draw: how the parameters move together.
        "law_draws": analysis.loss.law.draws if analysis.loss.law else None,
    }
    rest = {f.name: getattr(analysis, f.name) for f in dataclasses.fields(analysis) if f.name != "runs"}
    return plain({**head, **rest})


def plain(value: Any) -> Any:
    """JSON values of dataclasses, arrays and numbers; a form is its name, what is not finite becomes None."""
    if isinstance(value, Form):
        return value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (f.name for f in dataclasses.fields(value) if f.name not in NOT_WRITTEN)
        return {name: plain(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def ledger(runs: Runs) -> Ledger:
    """Counts and compute of all rows, failed and held-out ones too."""
    table = runs.table
    finished, left_out = pl.col("status") == "finished", pl.col("excluded").is_not_null()
    seconds = {}
    if "wall_seconds" in table.columns:
        by_status = table.group_by("status").agg(pl.col("wall_seconds").sum()).sort("status")
        seconds = dict(by_status.iter_rows())
    reasons = {}
    if "reason" in table.columns:
        failed = table.filter(~finished)
        reasons = dict(failed["reason"].fill_null("").value_counts(sort=True).iter_rows())

    def flops(rule: pl.Expr) -> float:
        spent = pl.coalesce("C_spent", "C") if "C_spent" in table.columns else pl.col("C")
        return float(table.filter(rule).select(spent.sum()).item() or 0.0)

    return Ledger(
        runs.counts(), flops(finished & ~left_out), flops(~finished), flops(finished & left_out), seconds, reasons
    )


def _deadweight(loss: LossAnalysis, flops: float, confidence: float) -> dict[str, Deadweight]:
    """What the sizes of the other methods would waste at the largest budget, were the parametric law the truth."""
    if loss.law is None:
        return {}
    found = {}
    for method in loss.methods:
        if method.frontier is not None and not method.parameters:
            size = float(np.exp(np.interp(np.log(flops), np.log(method.frontier.flops), np.log(method.frontier.N))))
            (found[method.name],) = deadweight(loss.law, np.array([size]), np.array([flops]), confidence)
    return found


def _missing(loss: LossAnalysis, rate: RateAnalysis | None) -> list[Missing]:
    found = [Missing(f"{m.name}: exponents", m.why_not) for m in loss.methods if m.why_not]
    found += [Missing(m.name, warning) for m in loss.methods for warning in m.warnings if "not identified" in warning]
    if loss.seed_sd is None:
        found.append(Missing("noise between seeds", "no cell was run with two seeds"))
    if rate is None:
        return [*found, Missing("recall", "fewer than three finished runs have one")]
    for form in rate.forms:
        if form.why_not:
            found.append(Missing(form.form, form.why_not))
        elif form.profile is not None and not form.profile.identified:
            low, high = form.profile.interval
            found.append(
                Missing(
                    f"irreducible miss rate of {form.form}", f"anything between {low:.3f} and {high:.3f} fits as well"
                )
            )
    return found
