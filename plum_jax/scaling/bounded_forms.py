"""Forms of a rate in [0, 1] (recall@k) in size, tokens, compute or loss. All are fitted to the rate itself.

F1 logit of the rate linear in log C; F2 miss rate E + A N^-a + B D^-b; F3 miss rate E + A C^-a; F4 the rate as a
sigmoid or an exponential decay of the loss (two-step: the loss comes from the loss law); F5 logit of the rate
c - A N^-a - B D^-b. The straight line in log C (2402.17152, HSTU) leaves [0, 1] and is there to be beaten.

Parameters are unconstrained: what must be positive is stored as its log, what must be in an interval as a logit.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from scipy.special import expit, logit


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a rate may depend on, arrays of [points]: logs relative to the centre of the fitted points, and the loss."""

    log_n: np.ndarray
    log_d: np.ndarray
    log_c: np.ndarray
    loss: np.ndarray


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is known of the rate beforehand.

    Attributes:
      floor: rate by chance, k / items; None where the rate at infinite loss is to be fitted (F4 alone).
      least_miss: the smallest miss rate seen; E of F2 and F3 is below it.
    """

    floor: float | None
    least_miss: float


@dataclasses.dataclass(frozen=True)
class Form:
    """One form.

    Attributes:
      name: for tables.
      parameters: how many, with a known floor; F4 has one more without.
      of_compute: whether it knows C alone, so that it describes the best size only.
      of_loss: whether it needs the loss.
      rate: (parameters [..., p], inputs, limits) -> rate [..., points].
      starts: rates and inputs of the fitted points -> starts [starts, p].
      irreducible: place of E among the parameters, None where the form has none.
    """

    name: str
    parameters: int
    of_compute: bool
    of_loss: bool
    rate: Callable[[np.ndarray, Inputs, Limits], np.ndarray]
    starts: Callable[[np.ndarray, Inputs, Limits], np.ndarray]
    irreducible: int | None = None


def irreducible_miss(theta: np.ndarray, limits: Limits) -> np.ndarray:
    """E from its parameter: between 0 and the smallest miss rate seen."""
    return limits.least_miss * expit(theta)


def _floor(limits: Limits) -> float:
    return limits.floor or 0.0


def _logit_line(theta: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    floor = _floor(limits)
    return floor + (1 - floor) * expit(theta[..., :1] + theta[..., 1:2] * x.log_c)


def _line(theta: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    return theta[..., :1] + theta[..., 1:2] * x.log_c


def _power_of_compute(theta: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    return 1 - irreducible_miss(theta[..., :1], limits) - np.exp(theta[..., 1:2] - np.exp(theta[..., 2:3]) * x.log_c)


def _two_powers(theta: np.ndarray, x: Inputs) -> np.ndarray:
    """A N^-a + B D^-b of (log A, log B, log a, log b)."""
    of_size = np.exp(theta[..., 0:1] - np.exp(theta[..., 2:3]) * x.log_n)
    return of_size + np.exp(theta[..., 1:2] - np.exp(theta[..., 3:4]) * x.log_d)


def _power_of_size_and_data(theta: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    return 1 - irreducible_miss(theta[..., :1], limits) - _two_powers(theta[..., 1:], x)


def _logit_powers(theta: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    floor = _floor(limits)
    return floor + (1 - floor) * expit(theta[..., :1] - _two_powers(theta[..., 1:], x))


def _sigmoid_of_loss(theta: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    """(logit top, log slope, loss at the middle[, logit of bottom / top])."""
    top = expit(theta[..., 0:1])
    bottom = limits.floor if limits.floor is not None else top * expit(theta[..., 3:4])
    return bottom + (top - bottom) * expit(-np.exp(theta[..., 1:2]) * (x.loss - theta[..., 2:3]))


def _decay_of_loss(theta: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    """(log k, log gamma[, logit bottom]) of bottom + k exp(-gamma L): error = eps - k exp(-gamma L), 2403.08540."""
    bottom = limits.floor if limits.floor is not None else expit(theta[..., 2:3])
    return bottom + np.exp(theta[..., 0:1] - np.exp(theta[..., 1:2]) * x.loss)


def _starts_of_lines(rates: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    inner = np.clip(rates, 1e-4, 1 - 1e-4)
    slope, middle = np.polyfit(x.log_c, logit(inner), 1)
    return np.array([[middle, slope]])


def _starts_of_plain_line(rates: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    return np.polyfit(x.log_c, rates, 1)[None, ::-1]


def _starts_of_compute(rates: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    miss = float(np.mean(1 - rates))
    grid = itertools.product((0.05, 0.4, 0.8, 0.95), (0.02, 0.1, 0.3, 0.8))
    return np.array([[logit(e), np.log(max(miss - e * limits.least_miss, 1e-3)), np.log(a)] for e, a in grid])


def _starts_of_powers(rates: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    miss = float(np.mean(1 - rates))
    slopes = (0.05, 0.3)
    grid = itertools.product((0.1, 0.8), (0.2, 0.5, 0.8), slopes, slopes)
    rows = []
    for e, share, a, b in grid:
        rest = max(miss - e * limits.least_miss, 1e-3)
        rows.append([logit(e), np.log(share * rest), np.log((1 - share) * rest), np.log(a), np.log(b)])
    return np.array(rows)


def _starts_of_logit_powers(rates: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    middle = float(logit(np.clip(np.mean(rates), 1e-3, 1 - 1e-3)))
    slopes = (0.05, 0.3)
    grid = itertools.product((0.5, 3.0), (0.2, 0.5, 0.8), slopes, slopes)
    return np.array([[middle + g, np.log(s * g), np.log((1 - s) * g), np.log(a), np.log(b)] for g, s, a, b in grid])


def _starts_of_sigmoid(rates: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    spread = float(np.std(x.loss)) or 1.0
    best = float(np.max(rates))
    tops = [min(1.2 * best, 0.99), 0.99]
    middles = [float(np.quantile(x.loss, 0.3)), float(np.min(x.loss)) - spread]
    rows = []
    for top, slope, middle in itertools.product(tops, (0.7, 3.0), middles):
        rows.append([logit(top), np.log(slope / spread), middle])
        if limits.floor is None:
            rows[-1].append(logit(min(max(0.9 * float(np.min(rates)) / top, 0.01), 0.99)))
    return np.array(rows)


def _starts_of_decay(rates: np.ndarray, x: Inputs, limits: Limits) -> np.ndarray:
    spread = float(np.std(x.loss)) or 1.0
    lowest = float(np.min(rates))
    rows = []
    for steepness in (0.3, 1.0, 3.0):
        bottom = limits.floor if limits.floor is not None else 0.7 * lowest
        gap = max(float(np.mean(rates)) - bottom, 1e-3)
        gamma = steepness / spread
        rows.append([np.log(gap) + gamma * float(np.mean(x.loss)), np.log(gamma)])
        if limits.floor is None:
            rows[-1].append(logit(min(max(bottom, 1e-3), 0.99)))
    return np.array(rows)


LINE = Form("line in log C (baseline)", 2, True, False, _line, _starts_of_plain_line)
LOGIT_LINE = Form("F1 logit line in log C", 2, True, False, _logit_line, _starts_of_lines)
POWERS = Form("F2 miss = E + A N^-a + B D^-b", 5, False, False, _power_of_size_and_data, _starts_of_powers, 0)
POWER_OF_COMPUTE = Form("F3 miss = E + A C^-a", 3, True, False, _power_of_compute, _starts_of_compute, 0)
SIGMOID_OF_LOSS = Form("F4 two-step, sigmoid of loss", 3, False, True, _sigmoid_of_loss, _starts_of_sigmoid)
DECAY_OF_LOSS = Form("F4 two-step, decay of loss", 2, False, True, _decay_of_loss, _starts_of_decay)
LOGIT_POWERS = Form("F5 logit = c - A N^-a - B D^-b", 5, False, False, _logit_powers, _starts_of_logit_powers)
FORMS = (SIGMOID_OF_LOSS, DECAY_OF_LOSS, LOGIT_LINE, POWERS, POWER_OF_COMPUTE, LOGIT_POWERS, LINE)
