"""Approach 2 of Hoffmann et al.: per budget the best size, by a parabola of the metric in log N; then a log-log line.

A parabola that cannot be trusted is refused with its reason, and its points are kept for the plot. The vertex of a
parabola is biased where alpha and beta differ, also without noise (`tests/scaling/test_iso_flop.py` has the constants):
it is reported beside the parametric fits, never alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from plum_jax.scaling.power_line import Line, fit_line


@dataclasses.dataclass(frozen=True)
class IsoFlopPoints:
    """Runs of several budgets, arrays of [runs].

    Attributes:
      budget: intended FLOPs, the group.
      N: parameters.
      D: tokens.
      value: loss, or a metric to be maximised.
      run: identity; points of one run share their noise.
      standard_error: of `value`, where it is known (reading error, seed and evaluation noise); else None.
    """

    budget: np.ndarray
    N: np.ndarray
    D: np.ndarray
    value: np.ndarray
    run: np.ndarray
    standard_error: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Gates:
    """What a parabola must pass to be trusted."""

    minimum_sizes: int = 5
    # Of the interval of the curvature, which must not hold 0.
    confidence: float = 0.95
    # So many sizes at least on either side of the optimum.
    sizes_either_side: int = 1
    # A point is left out where a parabola with normal noise would have such a one with less than this probability.
    outlier_chance: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Parabola:
    """One budget: value = c0 + c1 x + c2 x^2 with x = log N.

    Attributes:
      budget: FLOPs.
      accepted: whether it passed all gates.
      reason: the gates that it did not pass; "" when accepted.
      coefficients: (c0, c1, c2), empty where no parabola could be made.
      N: the best size, and its relative standard error `log_N_se` (of log N).
      D: tokens there, from the line of log D in log N of this budget's runs.
      value: loss or metric there.
      curvature_interval: of c2.
      points: indices into `IsoFlopPoints` that were used.
      rejected: index -> why it was not used.
      residual_sd: of the fit, NaN with three points.
    """

    budget: float
    accepted: bool
    reason: str
    coefficients: tuple[float, ...]
    N: float
    log_N_se: float
    D: float
    value: float
    curvature_interval: tuple[float, float]
    points: tuple[int, ...]
    rejected: dict[int, str]
    residual_sd: float


@dataclasses.dataclass(frozen=True)
class IsoFlopFit:
    """All budgets, and where the best size and its tokens go with compute.

    Attributes:
      parabolas: one a budget, by budget.
      N: line of the best size in C; None where fewer than two parabolas were accepted.
      D: line of the tokens there.
      noise_sd: standard deviation of the points about their parabolas, in units of `value`.
      draws_without_optimum: fraction of (draw, budget) whose parabola had no optimum, left out of the intervals.
      why_not: what keeps the lines from being there; "" where they are.
    """

    parabolas: tuple[Parabola, ...]
    N: Line | None
    D: Line | None
    noise_sd: float
    draws_without_optimum: float
    why_not: str


def fit_iso_flop(
    points: IsoFlopPoints,
    maximise: bool = False,
    gates: Gates | None = None,
    draws: int = 1000,
    confidence: float = 0.9,
    seed: int = 0,
) -> IsoFlopFit:
    """Parabolas of every budget and the lines through their optima.

    Intervals: Gaussian noise with the pooled standard deviation about the parabolas (the known one of a point where
    that is larger) is added to the parabolas' values, one standard draw for a run in all budgets that it is in, and
    everything is fitted again. The pooled variance is drawn too, as its degrees of freedom say: few points give wide
    intervals.
    """
    gates = gates or Gates()
    sign = -1.0 if maximise else 1.0
    budgets = np.unique(points.budget)
    parabolas = tuple(_parabola(points, float(b), sign, gates) for b in budgets)
    accepted = [p for p in parabolas if p.accepted]
    noise_sd, freedom = _pooled(accepted, points)
    if len(accepted) < 2:
        why = f"{len(accepted)} of {len(parabolas)} budgets have a parabola that passes its gates; a line needs two"
        return IsoFlopFit(parabolas, None, None, noise_sd, 0.0, why)
    optima_n, optima_d = _drawn_optima(points, accepted, sign, noise_sd, freedom, draws, seed)
    flops = np.array([p.budget for p in accepted])
    line_n = fit_line(flops, np.array([p.N for p in accepted]), optima_n, confidence=confidence)
    line_d = fit_line(flops, np.array([p.D for p in accepted]), optima_d, confidence=confidence)
    return IsoFlopFit(parabolas, line_n, line_d, noise_sd, float(np.isnan(optima_n).mean()), "")


def _parabola(points: IsoFlopPoints, budget: float, sign: float, gates: Gates) -> Parabola:
    here = np.flatnonzero(points.budget == budget)
    log_n = np.log(points.N[here]) - np.mean(np.log(points.N[here]))
    rejected = {int(here[i]): why for i, why in _outliers(log_n, points.value[here], gates.outlier_chance).items()}
    used = np.array([i for i in here if i not in rejected])
    sizes = np.unique(points.N[used])
    nothing = Parabola(
        budget, False, "", (), np.nan, np.nan, np.nan, np.nan, (np.nan, np.nan), tuple(used.tolist()), rejected, np.nan
    )
    if len(sizes) < 3:
        return dataclasses.replace(nothing, reason=f"{len(sizes)} sizes make no parabola")
    centre = float(np.mean(np.log(points.N[used])))
    x = np.log(points.N[used]) - centre
    errors = None if points.standard_error is None else points.standard_error[used]
    coefficients, covariance, residual_sd = _least_squares(x, points.value[used], errors)
    c0, c1, c2 = coefficients
    freedom = len(used) - 3
    quantile = stats.t.ppf(0.5 + gates.confidence / 2, freedom) if errors is None and freedom else stats.norm.ppf(0.975)
    half = quantile * np.sqrt(covariance[2, 2])
    problems = []
    if len(sizes) < gates.minimum_sizes:
        problems.append(f"{len(sizes)} sizes, at least {gates.minimum_sizes} wanted")
    if not sign * c2 - half > 0:
        problems.append(f"the {100 * gates.confidence:g}% interval of the curvature holds 0")
    if sign * c2 <= 0:
        return dataclasses.replace(nothing, reason="; ".join([*problems, "bent the wrong way"]))
    best = -c1 / (2 * c2)
    gradient = np.array([0, -1 / (2 * c2), c1 / (2 * c2**2)])
    offsets = np.log(sizes) - centre
    either_side = min(int(np.sum(offsets < best)), int(np.sum(offsets > best)))
    if either_side == 0:
        problems.append("the optimum is outside the sizes that were run")
    elif either_side < gates.sizes_either_side:
        problems.append(f"only {either_side} sizes on one side of the optimum")
    slope, intercept = np.polyfit(x, np.log(points.D[used]), 1)
    return Parabola(
        budget=budget,
        accepted=not problems,
        reason="; ".join(problems),
        coefficients=(c0 - c1 * centre + c2 * centre**2, c1 - 2 * c2 * centre, c2),
        N=float(np.exp(best + centre)),
        log_N_se=float(np.sqrt(gradient @ covariance @ gradient)),
        D=float(np.exp(intercept + slope * best)),
        value=float(c0 + c1 * best + c2 * best**2),
        curvature_interval=(float(c2 - half), float(c2 + half)),
        points=tuple(used.tolist()),
        rejected=rejected,
        residual_sd=residual_sd,
    )


def _least_squares(x: np.ndarray, y: np.ndarray, errors: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, float]:
    """Coefficients [3], their covariance [3, 3] and the residual standard deviation.

    Known errors weight the points; where the points scatter more than those say, the covariance grows with it.
    """
    rows = np.stack([np.ones_like(x), x, x**2], 1)
    weights = np.ones_like(x) if errors is None else 1 / errors
    coefficients, *_ = np.linalg.lstsq(rows * weights[:, None], y * weights, rcond=None)
    residuals = (y - rows @ coefficients) * weights
    freedom = len(x) - 3
    variance = float(residuals @ residuals / freedom) if freedom else float("nan")
    residual_sd = float(np.std(y - rows @ coefficients) * np.sqrt(len(x) / freedom)) if freedom else float("nan")
    unscaled = np.linalg.inv((rows * weights[:, None]).T @ (rows * weights[:, None]))
    if errors is None:
        return coefficients, unscaled * variance, residual_sd
    return coefficients, unscaled * (max(1.0, variance) if freedom else 1.0), residual_sd


def _outliers(x: np.ndarray, y: np.ndarray, chance: float) -> dict[int, str]:
    """Indices of points that the others' parabola does not expect, and why; the worst first, then again without it.

    A point is judged by its deleted residual, in standard deviations that the others give, so it cannot hide itself.
    Points of the smallest and the largest size are never judged: a parabola is not a law, and bends away there.
    """
    found: dict[int, str] = {}
    while True:
        kept = np.array([i for i in range(len(x)) if i not in found])
        if len(np.unique(x[kept])) < 6:
            return found
        rows = np.stack([np.ones(len(kept)), x[kept], x[kept] ** 2], 1)
        rows, _ = np.linalg.qr(rows)
        leverage = np.sum(rows**2, 1)
        residuals = y[kept] - rows @ (rows.T @ y[kept])
        freedom = len(kept) - 4
        others = np.maximum(residuals @ residuals - residuals**2 / (1 - leverage), 0) / freedom
        inner = (x[kept] > x[kept].min()) & (x[kept] < x[kept].max()) & (others > 0)
        t = np.zeros(len(kept))
        t[inner] = np.abs(residuals[inner]) / np.sqrt(others[inner] * (1 - leverage[inner]))
        worst = int(np.argmax(t))
        if 2 * stats.t.sf(t[worst], freedom) * len(kept) > chance:
            return found
        found[int(kept[worst])] = f"{t[worst]:.0f} standard deviations from the parabola of the others"


def _pooled(accepted: Sequence[Parabola], points: IsoFlopPoints) -> tuple[float, int]:
    """Standard deviation of all points about their parabolas, and its degrees of freedom."""
    freedom = sum(len(p.points) - 3 for p in accepted)
    if not freedom:
        return float("nan"), 0
    squares = 0.0
    for p in accepted:
        used = list(p.points)
        squares += float(np.sum((points.value[used] - np.polyval(p.coefficients[::-1], np.log(points.N[used]))) ** 2))
    return float(np.sqrt(squares / freedom)), freedom


def _drawn_optima(
    points: IsoFlopPoints,
    accepted: Sequence[Parabola],
    sign: float,
    noise_sd: float,
    freedom: int,
    draws: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Best N and D of every draw and budget, [draws, budgets] each; NaN where a draw has no optimum near the sizes."""
    generator = np.random.default_rng(seed)
    runs, which = np.unique(points.run, return_inverse=True)
    noise = generator.standard_normal((draws, len(runs)))[:, which]
    inflation = np.sqrt(freedom / generator.chisquare(freedom, draws))[:, None] if freedom else np.ones((draws, 1))
    known = np.zeros(len(points.N)) if points.standard_error is None else points.standard_error
    sd = np.maximum(known[None], (noise_sd if freedom else 0.0) * inflation)
    sizes_drawn, tokens_drawn = [], []
    for p in accepted:
        used = np.array(p.points)
        centre = np.log(points.N[used]).mean()
        x = np.log(points.N[used]) - centre
        rows = np.stack([np.ones_like(x), x, x**2], 1)
        weights = np.ones_like(x) if points.standard_error is None else 1 / points.standard_error[used]
        smooth = np.polyval(p.coefficients[::-1], np.log(points.N[used]))
        values = smooth[None] + noise[:, used] * sd[:, used]
        c = (np.linalg.pinv(rows * weights[:, None]) @ (values * weights).T).T
        best = -c[:, 1] / (2 * np.where(c[:, 2] == 0, np.nan, c[:, 2]))
        width = x.max() - x.min()
        good = (sign * c[:, 2] > 0) & (best > x.min() - width) & (best < x.max() + width)
        best = np.where(good, best, np.nan)
        slope, intercept = np.polyfit(x, np.log(points.D[used]), 1)
        sizes_drawn.append(np.exp(best + centre))
        tokens_drawn.append(np.exp(intercept + slope * best))
    return np.stack(sizes_drawn, 1), np.stack(tokens_drawn, 1)
