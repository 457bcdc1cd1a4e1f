"""The best size of a budget by interpolation, not by a parabola: Porian et al., 2406.19146.

Log loss is interpolated in log N by Akima's spline, and the least value on a fine grid is the optimum; noise draws give
its spread, which weights the log-log line. No shape is assumed, so there is no parabola bias, and no smoothing either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import interpolate

from plum_jax.scaling.iso_flop import IsoFlopPoints
from plum_jax.scaling.power_line import Line, fit_line

GRID_POINTS_PER_GAP = 25
# The spread of an optimum is at least this fraction of the grid of sizes: the grid itself cannot tell less.
LEAST_FRACTION_OF_GAP = 1 / 3


@dataclasses.dataclass(frozen=True)
class Optimum:
    """The best size of one budget.

    Attributes:
      budget: FLOPs.
      N: parameters; NaN where the least value is at an edge.
      D: tokens there, by the line of log D in log N.
      log_N_sd: spread of log N over the noise draws, at least a third of the gap between neighbouring sizes.
      draws_at_edge: fraction of draws whose least value was at an edge.
    """

    budget: float
    N: float
    D: float
    log_N_sd: float
    draws_at_edge: float


@dataclasses.dataclass(frozen=True)
class AkimaFit:
    """Optima of the budgets with three sizes, and the lines through those inside; None with fewer than two of them."""

    optima: tuple[Optimum, ...]
    N: Line | None
    D: Line | None


def fit_akima(
    points: IsoFlopPoints,
    noise_sd: Callable[[np.ndarray], np.ndarray] | float,
    maximise: bool = False,
    draws: int = 1000,
    confidence: float = 0.9,
    seed: int = 0,
) -> AkimaFit:
    """Optima by Akima interpolation and the lines through them.

    Args:
      points: runs of several budgets. Of runs of one size and budget the best counts.
      noise_sd: standard deviation of a value between seeds, one number or a function of the values (`seed_noise`).
      maximise: for a metric that is better when larger.
      draws: of the noise; a budget's observed optimum is the median of them.
      confidence: of the intervals.
      seed: of the noise.
    """
    generator = np.random.default_rng(seed)
    optima: list[Optimum] = []
    drawn_n, drawn_d = [], []
    for budget in np.unique(points.budget):
        sizes, tokens, values = _best_of_each_size(points, float(budget), maximise)
        if len(sizes) < 3:
            continue
        sd = np.broadcast_to(noise_sd(values) if callable(noise_sd) else noise_sd, values.shape)
        noisy = values[None] + sd[None] * generator.standard_normal((draws, len(values)))
        x = np.log(sizes)
        found = np.array([optimum_of(x, -row if maximise else np.log(np.maximum(row, 1e-300))) for row in noisy])
        slope, intercept = np.polyfit(x, np.log(tokens), 1)
        least = LEAST_FRACTION_OF_GAP * float(np.mean(np.diff(x)))
        inside = found[np.isfinite(found)]
        # Where most draws have their least value at an edge, the budget has no optimum.
        middle = float(np.median(inside)) if len(inside) > draws / 2 else np.nan
        spread = max(float(np.std(inside)), least) if len(inside) else np.nan
        optima.append(
            Optimum(
                float(budget),
                float(np.exp(middle)),
                float(np.exp(intercept + slope * middle)),
                spread,
                float(np.isnan(found).mean()),
            )
        )
        drawn_n.append(np.exp(found))
        drawn_d.append(np.exp(intercept + slope * found))
    if not optima:
        return AkimaFit((), None, None)
    return _lines(tuple(optima), np.stack(drawn_n, 1), np.stack(drawn_d, 1), confidence)


def optimum_of(x: np.ndarray, y: np.ndarray) -> float:
    """The x of the least interpolated y, [sizes] each, x rising; NaN at an edge."""
    if len(x) < 3:
        return float("nan")
    grid = np.linspace(x[0], x[-1], GRID_POINTS_PER_GAP * (len(x) - 1))
    least = int(np.argmin(interpolate.Akima1DInterpolator(x, y)(grid)))
    return float("nan") if least in (0, len(grid) - 1) else float(grid[least])


def weighted_exponent(flops: np.ndarray, optima: np.ndarray, log_sd: np.ndarray) -> float:
    """Slope of the line through log optima with weights 1 / sd^2; optima that are NaN are left out."""
    there = np.isfinite(optima)
    line = fit_line(flops[there], optima[there], optima[None, there], 1 / log_sd[there] ** 2)
    return line.exponent


def seed_noise(losses: tuple[float, float], sds: tuple[float, float]) -> Callable[[np.ndarray], np.ndarray]:
    """Noise between seeds that rises with the loss: log-interpolated between two losses, constant outside.

    Porian et al. measured sd 0.002 at loss 3 and 0.05 at loss 7 on RefinedWeb, 0.01 at 3 and 0.1 at 6 on OpenWebText2.
    """

    def sd(values: np.ndarray) -> np.ndarray:
        return np.exp(np.interp(np.log(values), np.log(losses), np.log(sds)))

    return sd


def _best_of_each_size(points: IsoFlopPoints, budget: float, maximise: bool) -> np.ndarray:
    """Sizes, tokens and best values of a budget, [3, sizes], by rising size."""
    here = np.flatnonzero(points.budget == budget)
    order = here[np.lexsort((points.value[here] * (-1 if maximise else 1), points.N[here]))]
    _, first = np.unique(points.N[order], return_index=True)
    best = order[first]
    return np.stack([points.N[best], points.D[best], points.value[best]])


def _lines(optima: tuple[Optimum, ...], drawn_n: np.ndarray, drawn_d: np.ndarray, confidence: float) -> AkimaFit:
    there = np.array([np.isfinite(o.N) for o in optima])
    if there.sum() < 2:
        return AkimaFit(optima, None, None)
    flops = np.array([o.budget for o in optima])[there]
    weights = np.array([o.log_N_sd for o in optima])[there] ** -2.0
    sizes, tokens = (np.array([getattr(o, name) for o in optima])[there] for name in ("N", "D"))
    line_n = fit_line(flops, sizes, drawn_n[:, there], weights, confidence)
    line_d = fit_line(flops, tokens, drawn_d[:, there], weights, confidence)
    return AkimaFit(optima, line_n, line_d)
