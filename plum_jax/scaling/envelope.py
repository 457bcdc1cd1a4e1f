"""Approach 1 of Hoffmann et al.: the lower envelope of training curves, and the size on it, against compute.

A curve is several points of one size: the checkpoints of a run, or better runs of several lengths, each with a schedule
of its own (a checkpoint in the middle of a schedule is not a run of that length). The points of a curve are correlated,
so intervals come from drawing whole curves.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import interpolate

from plum_jax.scaling.power_line import Line, fit_line

FLOP_VALUES = 1500


@dataclasses.dataclass(frozen=True)
class EnvelopeFit:
    """The envelope and the lines through it.

    Attributes:
      flops: where at least two curves were compared, [values].
      value: the best loss (or metric) there, [values].
      N: of the curve that has it, [values].
      curves_on_envelope: how many curves are somewhere the best.
      line_N: N against C, one point for each stretch of the envelope; None where `why_not` says why.
      line_D: tokens against C.
      why_not: "" where there are lines.
    """

    flops: np.ndarray
    value: np.ndarray
    N: np.ndarray
    curves_on_envelope: int
    line_N: Line | None
    line_D: Line | None
    why_not: str


def fit_envelope(
    curve: np.ndarray,
    N: np.ndarray,
    D: np.ndarray,
    C: np.ndarray,
    value: np.ndarray,
    maximise: bool = False,
    draws: int = 300,
    confidence: float = 0.9,
    seed: int = 0,
) -> EnvelopeFit:
    """The best of all curves at 1,500 log-spaced FLOP values, and the log-log lines of its size and tokens.

    The ends, where the smallest or the largest curve wins because there is no other, are left out: a value counts where
    at least two curves are, and neither the smallest nor the largest size of all is the best.

    Args:
      curve: identity of the curve of a point, [points].
      N: parameters, [points]; one value a curve.
      D: tokens, [points].
      C: FLOPs, [points].
      value: loss, or a metric that is to be maximised, [points].
      maximise: for such a metric.
      draws: of whole curves with replacement, for the intervals.
      confidence: of the intervals.
      seed: of the draws.
    """
    names = np.unique(curve)
    curves = [_curve(C[curve == n], value[curve == n], maximise) for n in names]
    sizes = np.array([N[curve == n][0] for n in names])
    flops = np.geomspace(C.min(), C.max(), FLOP_VALUES)
    table = np.stack([_interpolated(c, flops) for c in curves])
    tokens_per_flop = np.array([_log_ratio(D[curve == n], C[curve == n], flops) for n in names])
    best, there = _envelope(table, sizes)
    sign = -1.0 if maximise else 1.0
    found = np.where(there, best, -1)
    on_envelope = np.unique(found[there])
    winner = np.maximum(best, 0)
    columns = np.arange(len(flops))
    fields = (flops[there], sign * table[winner, columns][there], sizes[winner][there], len(on_envelope))
    if len(on_envelope) < 2:
        why = f"{len(on_envelope)} curves of {len(names)} are somewhere the best between others; a line needs two"
        return EnvelopeFit(*fields, None, None, why)
    tokens = flops * np.exp(tokens_per_flop[winner, columns])
    drawn_n, drawn_d = _drawn(table, sizes, tokens_per_flop, flops, draws, seed)
    line_n = fit_line(flops[there], sizes[winner][there], drawn_n[:, there], confidence=confidence)
    line_d = fit_line(flops[there], tokens[there], drawn_d[:, there], confidence=confidence)
    return EnvelopeFit(*fields, line_n, line_d, "")


def _curve(C: np.ndarray, value: np.ndarray, maximise: bool) -> tuple[np.ndarray, np.ndarray]:
    """Points by rising FLOPs, values negated where larger is better; of equal FLOPs the better value."""
    signed = -value if maximise else value
    order = np.lexsort((signed, C))
    flops, first = np.unique(C[order], return_index=True)
    return flops, signed[order][first]


def _interpolated(curve: tuple[np.ndarray, np.ndarray], flops: np.ndarray) -> np.ndarray:
    """Value of a curve by log FLOPs, infinite outside its points."""
    own, value = curve
    if len(own) < 2:
        return np.full_like(flops, np.inf)
    inside = (flops >= own[0] * (1 - 1e-9)) & (flops <= own[-1] * (1 + 1e-9))
    return np.where(inside, interpolate.PchipInterpolator(np.log(own), value)(np.log(flops)), np.inf)


def _log_ratio(D: np.ndarray, C: np.ndarray, flops: np.ndarray) -> np.ndarray:
    """log(D / C) of a curve at these FLOPs."""
    order = np.argsort(C)
    return np.interp(np.log(flops), np.log(C[order]), np.log(D[order] / C[order]))


def _envelope(table: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the best curve at each value, and whether the value counts."""
    best = np.argmin(table, 0)
    compared = np.isfinite(table).sum(0) >= 2
    inner = (sizes[best] > sizes.min()) & (sizes[best] < sizes.max())
    return best, compared & inner


def _drawn(
    table: np.ndarray, sizes: np.ndarray, log_ratio: np.ndarray, flops: np.ndarray, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Size and tokens on the envelope of curves drawn with replacement, [draws, values] each; NaN where none counts."""
    generator = np.random.default_rng(seed)
    columns = np.arange(len(flops))
    drawn_n, drawn_d = [], []
    for _ in range(draws):
        taken = np.unique(generator.integers(len(sizes), size=len(sizes)))
        best, there = _envelope(table[taken], sizes[taken])
        # One curve alone would give a line of slope 0.
        there &= len(np.unique(best[there])) >= 2
        chosen = taken[best]
        drawn_n.append(np.where(there, sizes[chosen], np.nan))
        drawn_d.append(np.where(there, flops * np.exp(log_ratio[chosen, columns]), np.nan))
    return np.stack(drawn_n), np.stack(drawn_d)
