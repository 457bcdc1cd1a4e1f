"""The loss of a table of runs: every method side by side, with exponents, frontier and what it cannot tell."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from plum_jax.scaling import multi_start
from plum_jax.scaling.akima import AkimaFit, fit_akima
from plum_jax.scaling.bootstrap import draw_counts
from plum_jax.scaling.envelope import EnvelopeFit, fit_envelope
from plum_jax.scaling.identifiability import NotIdentified, examine
from plum_jax.scaling.iso_flop import Gates, IsoFlopFit, IsoFlopPoints, fit_iso_flop
from plum_jax.scaling.least_squares import minimise_squares
from plum_jax.scaling.likelihood import Profile
from plum_jax.scaling.loss_results import Frontier, Interval, LawFit, Method
from plum_jax.scaling.noise import replicate_noise
from plum_jax.scaling.parametric_law import (
    ParametricFit,
    chinchilla_design,
    chinchilla_starts,
    fit_parametric,
    log_loss,
)
from plum_jax.scaling.power_line import Line, tails
from plum_jax.scaling.runs import Runs
from plum_jax.scaling.variable_projection import fit_variable_projection

FRONTIER_VALUES = 60
# The frontier is drawn this far beyond the largest budget.
AHEAD = 10.0
# Of Hoffmann's 4,500 starts, for draws and comparisons; the fit itself has all.
EVERY_START = 15
PARAMETERS = ("E", "A", "B", "alpha", "beta")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a table is analysed.

    Attributes:
      confidence: of all intervals.
      draws: of runs with replacement, and of noise about parabolas.
      seed: of the draws.
      delta: Huber's threshold in log loss.
      gates: of parabolas.
      best_learning_rates: fit only the best learning rate of each cell; the table of conventions has both.
      drop_largest_losses: so many runs are left out, named in the report.
      budget_tolerance: groups runs by achieved FLOPs where the table has no budgets; None: no iso-FLOP fit then.
      chance: recall of a random list, k / items; None: taken as 0, and said so.
      checkpoints: every checkpoint counts as a run of its length (constant learning rate); else the last alone.
      loss_error: standard error of every loss, where it is known, e.g. of points read off a figure.
      rate_error: the same of every rate; None: by counts, or unknown.
    """

    confidence: float = 0.9
    draws: int = 300
    seed: int = 0
    delta: float = 1e-3
    gates: Gates = dataclasses.field(default_factory=Gates)
    best_learning_rates: bool = True
    drop_largest_losses: int = 0
    budget_tolerance: float | None = None
    chance: float | None = None
    checkpoints: bool = False
    loss_error: float | None = None
    rate_error: float | None = None


@dataclasses.dataclass(frozen=True)
class LossAnalysis:
    """All methods on the loss.

    Attributes:
      methods: parametric fits first, then what needs budgets or curves.
      law: the Huber fit, for forecasts and the two-step forms; None where there are too few runs.
      profiles: of E, alpha and beta of the Huber fit.
      iso_flop: None without budgets.
      akima: None without budgets.
      envelope: of runs of several lengths a size; None where no size has two.
      seed_sd: spread of log loss between seeds; None without replicates.
    """

    methods: tuple[Method, ...]
    law: LawFit | None
    profiles: tuple[Profile, ...]
    iso_flop: IsoFlopFit | None
    akima: AkimaFit | None
    envelope: EnvelopeFit | None
    seed_sd: float | None


def analyse_loss(runs: Runs, settings: Settings) -> LossAnalysis:
    """Every method that the table allows; the others say what they lack."""
    table = runs.usable("loss")
    C = table["C"].to_numpy()
    flops = np.geomspace(C.min(), C.max() * AHEAD, FRONTIER_VALUES)
    law, parametric, profiles = _law(table, settings, flops)
    seed_sd = loss_seed_spread(table)
    iso_flop = akima = None
    if "budget" in table.columns:
        points = iso_flop_points(table, "loss", settings.loss_error)
        iso_flop = fit_iso_flop(points, False, settings.gates, settings.draws, settings.confidence, settings.seed)
        noise = seed_sd * float(np.mean(points.value)) if seed_sd else iso_flop.noise_sd
        if np.isfinite(noise):
            akima = fit_akima(points, noise, False, settings.draws, settings.confidence, settings.seed)
    envelope = _envelope(runs, settings)
    methods = [
        *parametric,
        _of_lines("iso-FLOP parabolas", iso_flop, _why_no_iso_flop(iso_flop), flops, settings),
        _of_lines("iso-FLOP interpolation", akima, "no budget has an inner optimum", flops, settings),
        _of_lines(
            "envelope", envelope, envelope.why_not if envelope else "no size has runs of two lengths", flops, settings
        ),
    ]
    return LossAnalysis(tuple(methods), law, profiles, iso_flop, akima, envelope, seed_sd)


def iso_flop_points(table: pl.DataFrame, value: str, error: np.ndarray | float | None = None) -> IsoFlopPoints:
    """Rows with budgets as arrays; `error` is the standard error of every value, or of each row's."""
    standard_error = None if error is None else np.broadcast_to(error, len(table))[table["budget"].is_not_null()]
    table = table.drop_nulls("budget")
    budget, N, D, values, run = (table[name].to_numpy() for name in ("budget", "N", "D", value, "run"))
    return IsoFlopPoints(budget, N, D, values, run, standard_error)


def loss_seed_spread(table: pl.DataFrame) -> float | None:
    """Standard deviation of log loss between runs that differ in seed alone; None where no cell has two."""
    try:
        return replicate_noise(cells_of(table), np.log(table["loss"].to_numpy())).seed_sd
    except ValueError:
        return None


def cells_of(table: pl.DataFrame) -> np.ndarray:
    """Number of each row's cell: what is the same but for the seed."""
    names = ("N", "budget" if "budget" in table.columns else "D", "learning_rate")
    keys = [name for name in names if name in table.columns]
    return table.select(pl.struct(keys).rank("dense").alias("cell"))["cell"].to_numpy()


def law_draws(N: np.ndarray, D: np.ndarray, loss: np.ndarray, counts: np.ndarray, delta: float) -> np.ndarray:
    """(log A, log B, log E, alpha, beta) of each draw, [draws, 5], each from many starts.

    Args:
      N, D, loss: [points].
      counts: how often each point is in a draw, [draws, points].
      delta: Huber's threshold.
    """
    targets = np.tile(np.log(loss), (len(counts), 1))
    starts = chinchilla_starts()[::EVERY_START]
    design = chinchilla_design(N, D)
    return multi_start.descend_many(design, targets, starts, delta=delta, weights=1.0 * counts).parameters


def frontier_of_law(
    fit: ParametricFit, draws: np.ndarray, flops_per_nd: float, flops: np.ndarray, confidence: float
) -> Frontier:
    """Best N, D and loss of a law at each compute, and the bands of its draws."""
    N, D = fit.optimum(flops, flops_per_nd)
    log_a, log_b, _, alpha, beta = (column[:, None] for column in draws.T)
    product = np.log(flops / flops_per_nd)[None]
    log_n = (np.log(alpha / beta) + log_a - log_b + beta * product) / (alpha + beta)
    log_d = product - log_n
    losses = np.exp(log_loss(draws[:, None, :], np.exp(log_n), np.exp(log_d)))
    with np.errstate(over="ignore"):
        bands = [np.quantile(v, tails(confidence), axis=0) for v in (np.exp(log_n), np.exp(log_d), losses)]
    (n_low, n_high), (d_low, d_high), (loss_low, loss_high) = bands
    return Frontier(flops, N, n_low, n_high, D, d_low, d_high, fit.loss(N, D), loss_low, loss_high)


def interval(value: float, draws: np.ndarray, confidence: float) -> Interval:
    """A value with the central interval of its draws."""
    low, high = np.quantile(draws, tails(confidence))
    return Interval(float(value), float(low), float(high))


def _law(
    table: pl.DataFrame, settings: Settings, flops: np.ndarray
) -> tuple[LawFit | None, list[Method], tuple[Profile, ...]]:
    """The Huber fit, both parametric methods, and the profiles of E, alpha and beta."""
    name = "parametric law, Huber"
    N, D, C, loss = (table[column].to_numpy() for column in ("N", "D", "C", "loss"))
    try:
        fit = fit_parametric(N, D, loss, delta=settings.delta)
    except ValueError as error:
        return None, [Method(name, None, None, {}, None, str(error))], ()
    names = table["run"].to_numpy()
    counts = draw_counts(len(names), settings.draws, settings.seed, scheme="copies", runs=names, least_runs=6)
    draws = law_draws(N, D, loss, counts, settings.delta)
    flops_per_nd = float(np.exp(np.mean(np.log(C / (N * D)))))
    law = LawFit(fit, draws, names, counts, flops_per_nd)
    found = examine(N, D, loss, fit, delta=settings.delta, level=settings.confidence)
    unknown = {n: v for n in ("a", *PARAMETERS) if isinstance(v := found.value(n), NotIdentified)}
    frontier = frontier_of_law(fit, draws, flops_per_nd, flops, settings.confidence)
    huber = _parametric(name, fit, draws, frontier, unknown, settings.confidence)
    return law, [huber, _projected(N, D, loss, counts, flops_per_nd, flops, settings)], tuple(found.profiles.values())


def _projected(
    N: np.ndarray,
    D: np.ndarray,
    loss: np.ndarray,
    counts: np.ndarray,
    flops_per_nd: float,
    flops: np.ndarray,
    settings: Settings,
) -> Method:
    """Least squares of the losses by variable projection; its draws are descended to from the fit."""
    name = "parametric law, variable projection"
    fit = fit_variable_projection(N, D, loss)
    vanished = [term for term in ("A", "B") if getattr(fit, term) == 0]
    if vanished:
        return Method(name, None, None, {}, None, f"the best {' and '.join(vanished)} is 0: no share in any loss")
    start = np.maximum(fit.log_parameters, -30.0)
    n, d = np.log(N), np.log(D)
    # Terms at the middle of the data: the parameters are then of order 1 and hardly depend on each other.
    middle = np.array([start[0] - start[3] * n.mean(), start[1] - start[4] * d.mean(), *start[2:]])
    root = np.sqrt(counts)

    def residuals(theta: np.ndarray, which: np.ndarray) -> np.ndarray:
        log_a, log_b, log_e, alpha, beta = (column[:, None] for column in theta.T)
        with np.errstate(over="ignore"):
            law = np.exp(log_a - alpha * (n - n.mean())) + np.exp(log_b - beta * (d - d.mean())) + np.exp(log_e)
            return (law - loss) * root[which]

    draws, _ = minimise_squares(residuals, np.tile(middle, (len(counts), 1)), 100, 1e-9)
    draws[:, 0] += draws[:, 3] * n.mean()
    draws[:, 1] += draws[:, 4] * d.mean()
    draws = draws[(draws[:, 3:] > 0).all(1)]
    frontier = frontier_of_law(fit, draws, flops_per_nd, flops, settings.confidence)
    return _parametric(name, fit, draws, frontier, {}, settings.confidence)


def _parametric(
    name: str,
    fit: ParametricFit,
    draws: np.ndarray,
    frontier: Frontier,
    unknown: dict[str, NotIdentified],
    confidence: float,
) -> Method:
    """A fit with the intervals of its draws; what is not identified is named with its reason, not given as a number."""
    values = dict(zip(PARAMETERS, (*np.exp(draws[:, [2, 0, 1]]).T, *draws[:, 3:].T), strict=True))
    parameters = {
        key: interval(getattr(fit, key), of_draws, confidence) for key, of_draws in values.items() if key not in unknown
    }
    warnings = tuple(str(why) for key, why in unknown.items() if key != "a")
    if "a" in unknown:
        return Method(name, None, None, parameters, frontier, unknown["a"].why, warnings)
    a = draws[:, 4] / (draws[:, 3] + draws[:, 4])
    exponents = interval(fit.exponent_a, a, confidence), interval(fit.exponent_b, 1 - a, confidence)
    return Method(name, *exponents, parameters, frontier, "", warnings)


def _envelope(runs: Runs, settings: Settings) -> EnvelopeFit | None:
    """Over sizes, each a curve of its runs of different length; over checkpoints where runs have several."""
    table = runs.usable("loss", checkpoints=True)
    by = "run" if table["run"].n_unique() < len(table) else "N"
    if table.group_by(by).len()["len"].max() == 1:
        return None
    curve, N, D, C, loss = (table[name].to_numpy() for name in (by, "N", "D", "C", "loss"))
    return fit_envelope(curve, N, D, C, loss, False, settings.draws, settings.confidence, settings.seed)


def _why_no_iso_flop(fit: IsoFlopFit | None) -> str:
    return "the table has no column of budgets" if fit is None else fit.why_not


def _of_lines(
    name: str, fit: IsoFlopFit | AkimaFit | EnvelopeFit | None, why_not: str, flops: np.ndarray, settings: Settings
) -> Method:
    lines = (fit.line_N, fit.line_D) if isinstance(fit, EnvelopeFit) else (fit.N, fit.D) if fit else (None, None)
    line_n, line_d = lines
    if line_n is None or line_d is None:
        return Method(name, None, None, {}, None, why_not)
    warnings = []
    if isinstance(fit, IsoFlopFit) and fit.draws_without_optimum > 0.05:
        warnings.append(f"{100 * fit.draws_without_optimum:.0f}% of the noise draws of a budget have no optimum")
    bands = line_n.band(flops, settings.confidence), line_d.band(flops, settings.confidence)
    frontier = Frontier(flops, line_n.at(flops), *bands[0], line_d.at(flops), *bands[1])
    return Method(name, _exponent(line_n), _exponent(line_d), {}, frontier, "", tuple(warnings))


def _exponent(line: Line) -> Interval:
    return Interval(line.exponent, *line.exponent_interval)
