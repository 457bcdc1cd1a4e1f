"""Recall of a table of runs: its iso-FLOP optima, every bounded form with its frontier, and which form to trust."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from plum_jax.scaling import bounded_forms
from plum_jax.scaling.akima import AkimaFit, fit_akima
from plum_jax.scaling.bounded_forms import Form
from plum_jax.scaling.bounded_metrics import (
    Profile,
    RateFit,
    RatePoints,
    fit_rate,
    profile_irreducible,
    rate_errors,
)
from plum_jax.scaling.iso_flop import IsoFlopFit, fit_iso_flop
from plum_jax.scaling.loss_analysis import Settings, cells_of, iso_flop_points
from plum_jax.scaling.loss_results import LawFit
from plum_jax.scaling.noise import replicate_noise
from plum_jax.scaling.parametric_law import ParametricFit, fit_parametric
from plum_jax.scaling.power_line import tails
from plum_jax.scaling.rate_selection import Trial, best_of_budgets, try_on_largest_budget
from plum_jax.scaling.runs import Runs

# With fewer budgets too little is left to fit when the largest is kept for the choice.
LEAST_BUDGETS = 4
SIZES_SEARCHED = 121
SIZES_BEYOND = 100.0


@dataclasses.dataclass(frozen=True)
class FormAnalysis:
    """One form on all runs that may be fitted.

    Attributes:
      fit: None where `why_not` says why.
      trial: how it predicted the largest budget from the others; None without budgets.
      profile: of E, for forms that have one.
      N: the size with the best rate at each compute of the frontier; NaN for forms of C alone.
      rate: the best rate there, and its band; [values] each.
      why_not: "" where there is a fit.
    """

    form: str
    fit: RateFit | None
    trial: Trial | None
    profile: Profile | None
    N: np.ndarray
    rate: np.ndarray
    rate_low: np.ndarray
    rate_high: np.ndarray
    why_not: str = ""


@dataclasses.dataclass(frozen=True)
class RateAnalysis:
    """All that is said of recall.

    Attributes:
      points: the runs.
      flops: where the frontiers are, [values].
      forms: all of them.
      chosen: name of the form to forecast with, and why.
      iso_flop: parabolas of recall; None without budgets.
      akima: interpolated optima; None without budgets.
      seed_sd: spread between seeds beyond counting; None without replicates.
      chance: what was taken for the rate of a random list.
      notes: what was assumed.
    """

    points: RatePoints
    flops: np.ndarray
    forms: tuple[FormAnalysis, ...]
    chosen: str
    why: str
    iso_flop: IsoFlopFit | None
    akima: AkimaFit | None
    seed_sd: float | None
    chance: float
    notes: tuple[str, ...]


def analyse_rate(runs: Runs, law: LawFit | None, settings: Settings, flops: np.ndarray) -> RateAnalysis | None:
    """Recall of the runs that have one; None where fewer than three have.

    Args:
      runs: the table.
      law: of the loss, for the two-step forms; its draws are of the same runs.
      settings: floor, draws, gates.
      flops: where the frontiers are wanted.
    """
    if "recall" not in runs.table.columns:
        return None
    table = runs.usable("recall")
    if len(table) < 3:
        return None
    points, seed_sd, notes = rate_points(table, settings.rate_error)
    chance = settings.chance or 0.0
    if settings.chance is None:
        notes.append("no chance level was given: recall of a random list taken as 0")
    cell = cells_of(table)
    budget = table["budget"].to_numpy() if "budget" in table.columns else np.arange(len(table), dtype=float)
    trials = _trials(table, points, budget, cell, chance, settings)
    counts = _counts_of(table, law)
    front = best_of_budgets(points, budget, cell)
    forms = []
    for form in bounded_forms.FORMS:
        here = front if form.of_compute else np.ones(len(front), bool)
        forms.append(_form(form, points, here, counts, law, chance, flops, trials.get(form.name), settings))
    iso_flop = akima = None
    if "budget" in table.columns and table["budget"].is_not_null().all():
        iso_points = iso_flop_points(table, "recall", points.standard_error)
        arguments = (settings.gates, settings.draws, settings.confidence, settings.seed)
        iso_flop = fit_iso_flop(iso_points, True, *arguments)
        noise = float(np.mean(points.standard_error)) if points.standard_error is not None else iso_flop.noise_sd
        if np.isfinite(noise):
            akima = fit_akima(iso_points, noise, True, settings.draws, settings.confidence, settings.seed)
    chosen, why = choose(trials, points, np.unique(budget).size)
    return RateAnalysis(points, flops, tuple(forms), chosen, why, iso_flop, akima, seed_sd, chance, tuple(notes))


def rate_points(table: pl.DataFrame, known: float | None = None) -> tuple[RatePoints, float | None, list[str]]:
    """Rows as arrays with standard errors (known, or from counts and seeds), the seeds' spread, what was assumed."""
    notes = []
    rate = table["recall"].to_numpy()
    error, seed_sd = None, None
    if known is not None:
        error = np.full(len(table), known)
    elif "users" in table.columns and table["users"].is_not_null().all():
        users = table["users"].to_numpy()
        try:
            seed_sd = replicate_noise(cells_of(table), rate, rate_errors(rate, users)).seed_sd
        except ValueError:
            notes.append("no cell has two seeds: the noise between seeds is part of the lack of fit")
        error = rate_errors(rate, users, seed_sd or 0.0)
    else:
        notes.append("no column of users: all rates weigh alike, and counting noise is part of the lack of fit")
    loss = table["loss"].to_numpy() if "loss" in table.columns else np.full(len(table), np.nan)
    N, D, C = (table[name].to_numpy() for name in ("N", "D", "C"))
    return RatePoints(N, D, C, rate, loss.astype(float), table["run"].to_numpy(), error), seed_sd, notes


def choose(trials: dict[str, Trial], points: RatePoints, budgets: int) -> tuple[str, str]:
    """The form to forecast with: two-step, unless another predicted the largest budget clearly better."""
    two_step = [t for t in trials.values() if t.form.startswith("F4") and np.isfinite(t.error)]
    default = min(two_step, key=lambda t: abs(t.error), default=None)
    others = [t for t in trials.values() if np.isfinite(t.error) and t.form != bounded_forms.LINE.name]
    if not others:
        return (
            bounded_forms.SIGMOID_OF_LOSS.name,
            f"the default: {budgets} budgets are too few to choose by one of them",
        )
    best = min(others, key=lambda t: abs(t.error))
    if default is None:
        return best.form, f"least error on the largest budget ({best.error:+.4f}); there is no loss law for two steps"
    noise = 0.0 if points.standard_error is None else float(np.mean(points.standard_error))
    if best.form.startswith("F4"):
        return best.form, f"least error on the largest budget ({best.error:+.4f})"
    if abs(best.error) + noise < abs(default.error):
        return best.form, f"{best.error:+.4f} on the largest budget, two-step {default.error:+.4f}, noise {noise:.4f}"
    return default.form, f"the default; {best.form} is better on the largest budget by less than the noise {noise:.4f}"


def _trials(
    table: pl.DataFrame, points: RatePoints, budget: np.ndarray, cell: np.ndarray, chance: float, settings: Settings
) -> dict[str, Trial]:
    if "budget" not in table.columns or np.unique(budget).size < LEAST_BUDGETS:
        return {}
    below = budget < budget.max()
    law = _law_below(points, below, settings.delta)
    forms = [form for form in bounded_forms.FORMS if law is not None or not form.of_loss]
    losses = points.loss if law is None else law.loss(points.N, points.D)
    trials = try_on_largest_budget(forms, points, budget, cell, losses, chance)
    return {trial.form: trial for trial in trials}


def _law_below(points: RatePoints, below: np.ndarray, delta: float) -> ParametricFit | None:
    """The loss law without the largest budget; the rows stay, with weight 0, so that nothing is compiled anew."""
    there = np.isfinite(points.loss)
    try:
        return fit_parametric(
            points.N[there], points.D[there], points.loss[there], weights=1.0 * below[there], delta=delta
        )
    except ValueError:
        return None


def _counts_of(table: pl.DataFrame, law: LawFit | None) -> np.ndarray | None:
    """The draws of the loss law's runs, for the rows that have a rate."""
    if law is None:
        return None
    drawn = dict(zip(law.run_names, law.counts.T, strict=True))
    nothing = np.zeros(len(law.counts), law.counts.dtype)
    return np.stack([drawn.get(run, nothing) for run in table["run"]], 1)


def _form(
    form: Form,
    points: RatePoints,
    here: np.ndarray,
    counts: np.ndarray | None,
    law: LawFit | None,
    chance: float,
    flops: np.ndarray,
    trial: Trial | None,
    settings: Settings,
) -> FormAnalysis:
    nothing = np.full(len(flops), np.nan)
    if form.of_loss and (law is None or not np.all(np.isfinite(points.loss))):
        why = "there is no loss law" if law is None else "some runs have no loss"
        return FormAnalysis(form.name, None, trial, None, nothing, nothing, nothing, nothing, why)
    try:
        fit = fit_rate(form, points.take(here), chance, None if counts is None else counts[:, here])
    except ValueError as error:
        return FormAnalysis(form.name, None, trial, None, nothing, nothing, nothing, nothing, str(error))
    profile = (
        profile_irreducible(form, points.take(here), settings.confidence) if form.irreducible is not None else None
    )
    N, rate, low, high = _frontier(fit, points, law, flops, settings.confidence)
    return FormAnalysis(form.name, fit, trial, profile, N, rate, low, high)


def _frontier(
    fit: RateFit, points: RatePoints, law: LawFit | None, flops: np.ndarray, confidence: float
) -> tuple[np.ndarray, ...]:
    """Best size, its rate and the band at each compute: the best of many sizes, for every draw its own."""
    flops_per_nd = law.flops_per_nd if law else float(np.exp(np.mean(np.log(points.C / points.N / points.D))))
    sizes = np.geomspace(points.N.min() / SIZES_BEYOND, points.N.max() * SIZES_BEYOND, SIZES_SEARCHED)
    if fit.form.of_compute:
        sizes = points.N[:1]
    C, N = (grid.ravel() for grid in np.meshgrid(flops, sizes, indexing="ij"))
    D = C / flops_per_nd / N
    nothing = np.zeros(len(N))
    losses = law.fit.loss(N, D) if law and fit.form.of_loss else nothing
    rates = fit.rate(N, D, C, losses).reshape(len(flops), len(sizes))
    best = np.argmax(rates, 1)
    N_best = np.full(len(flops), np.nan) if fit.form.of_compute else sizes[best]
    rate = rates.max(1)
    if not len(fit.draws):
        return N_best, rate, np.full(len(flops), np.nan), np.full(len(flops), np.nan)
    drawn = []
    for i, theta in enumerate(fit.draws):
        if law and fit.form.of_loss:
            losses = law.losses_of_draw(i, N, D)
        one = fit.form.rate(theta, fit.inputs(N, D, C, losses), fit.limits)
        drawn.append(one.reshape(len(flops), len(sizes)).max(1))
    low, high = np.quantile(np.array(drawn), tails(confidence), axis=0)
    return N_best, rate, low, high
