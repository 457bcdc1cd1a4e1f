"""Descends thousands of starts of one small problem, or of many problems: the lowest end is the fit.

Every round has steps of reweighted least squares and of Newton (`damped_newton`); starts that have converged or make no
headway leave. The first steps see only some of the rows: far from a minimum a few show the same way as all.
"""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from plum_jax.scaling import damped_newton, log_sum_exp
from plum_jax.scaling.damped_newton import CHUNK, Problem, Tables, take_steps
from plum_jax.scaling.log_sum_exp import Whitened

# (steps of reweighted least squares, steps of Newton); the first with some of the rows, where there are many.
_FAR = (60, 0)
_ROUNDS = ((8, 6), (8, 6), (15, 8), (15, 10))
_LAST = (60, 40)  # for the best few that have not converged
_FAR_ROWS = 30
_LAST_FEW, _MIGHT = 8, 1.5  # of each problem, with objectives below that multiple of its lowest
# Starts that are in one cell of this width, in whitened coordinates, go on as one.
_MET, _NEAR = 0.01, 0.1
_PROBLEMS = 100  # that are descended at a time
# A start that has not converged leaves when a round has lowered its objective by less than this share.
_HEADWAY = 0.03


@dataclasses.dataclass(frozen=True)
class Descents:
    """Where the starts ended, in the order of the starts.

    Attributes:
      parameters: [S, p].
      objective: [S], sums of weighted Huber losses.
      gradient: [S], largest component by whitened parameters.
      converged: [S] bool: a Newton step of a positive Hessian promises no more than rounding. The others were left on
        a plateau, most of them where a term of the law has vanished, with nothing to be gained soon.
    """

    parameters: np.ndarray
    objective: np.ndarray
    gradient: np.ndarray
    converged: np.ndarray

    def best(self) -> int:
        """Index of the lowest objective."""
        return int(np.nanargmin(self.objective))

    def share_at_best(self, tolerance: float = 1e-6) -> float:
        """Share of the starts whose objective is within `tolerance` (relative) of the lowest."""
        lowest = self.objective[self.best()]
        return float(np.mean(self.objective <= lowest * (1.0 + tolerance) + 1e-18))


@dataclasses.dataclass(frozen=True)
class _Progress:
    """All starts on the host, written to in place."""

    phi: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    converged: np.ndarray
    problem: np.ndarray

    @classmethod
    def begin(cls, phi: np.ndarray, problem: np.ndarray) -> _Progress:
        """Before the first step."""
        count = len(phi)
        return cls(phi.copy(), np.full(count, np.inf), np.full(count, np.inf), np.zeros(count, bool), problem)


@dataclasses.dataclass(frozen=True)
class Best:
    """The lowest end of each of R problems.

    Attributes:
      parameters: [R, p].
      objective: [R].
      converged: [R] bool.
      share_at_best: [R], of the places that the starts had reached, those that ended there (relative 1e-6).
    """

    parameters: np.ndarray
    objective: np.ndarray
    converged: np.ndarray
    share_at_best: np.ndarray


def descend(
    design: np.ndarray,
    target: np.ndarray,
    starts: np.ndarray,
    *,
    delta: float = 1e-3,
    weights: np.ndarray | None = None,
) -> Descents:
    """Minimises sum_i weight_i Huber_delta(log_prediction_i - target_i) from every start.

    Starts that meet far from a minimum, closer than 0.01 in log-predictions, go on as one, and share where it ends.

    Args:
      design: [K, n, p] terms of the law (`log_sum_exp`).
      target: [n], logs of what was observed.
      starts: [S, p].
      delta: Huber's threshold; infinity is least squares.
      weights: [n]; None is 1 each.

    Raises:
      ValueError: two parameters that the rows cannot tell apart.
    """
    white, tables = _prepare(design, target, weights, delta)
    places, place_of = _merge(_approach(white, tables, starts), _MET)
    progress = _finish(white, tables, places, np.zeros(len(places), np.int32))
    return Descents(
        parameters=(progress.phi @ white.to_theta.T)[place_of],
        objective=progress.value[place_of],
        gradient=progress.gradient[place_of],
        converged=progress.converged[place_of],
    )


def descend_many(
    design: np.ndarray,
    targets: np.ndarray,
    starts: np.ndarray,
    *,
    delta: float | np.ndarray = 1e-3,
    weights: np.ndarray | None = None,
) -> Best:
    """The same for R problems at once: bootstrap draws, simulated studies. Each has its own full multi-start.

    What the problems share is the way from the starts to where they are near data: it is gone once, with the mean
    target and weight. From every distinct place that was reached (0.1 in log-predictions apart; some 500 for Hoffmann's
    4,500 starts) each problem descends by itself.

    Args:
      design: [K, n, p].
      targets: [n] or [R, n].
      starts: [S, p].
      delta: one or [R].
      weights: [n] or [R, n], e.g. how often each run was drawn.
    """
    white, tables = _prepare(design, targets, weights, delta)
    count = max(len(table) for table in tables)
    mean = (tables[0].mean(0, keepdims=True), tables[1].mean(0, keepdims=True), tables[2][:1])
    places, _ = _merge(_approach(white, mean, starts), _NEAR)
    best = Best(*(np.empty((count, *shape)) for shape in ((places.shape[1],), (), (), ())))
    for begin in range(0, count, _PROBLEMS):
        batch = slice(begin, min(begin + _PROBLEMS, count))
        size = batch.stop - begin
        problem = np.repeat(np.arange(size, dtype=np.int32), len(places))
        progress = _finish(white, _rows_of(tables, begin, count), np.tile(places, (size, 1)), problem)
        value = progress.value.reshape(size, -1)
        lowest = value.argmin(1)
        at = np.arange(size) * len(places) + lowest
        best.parameters[batch] = progress.phi[at] @ white.to_theta.T
        best.objective[batch] = progress.value[at]
        best.converged[batch] = progress.converged[at]
        best.share_at_best[batch] = (value <= value.min(1, keepdims=True) * (1.0 + 1e-6) + 1e-18).mean(1)
    return dataclasses.replace(best, converged=best.converged.astype(bool))


def descend_from(
    design: np.ndarray,
    targets: np.ndarray,
    starts: np.ndarray,
    *,
    delta: float | np.ndarray = 1e-3,
    weights: np.ndarray | None = None,
) -> Best:
    """R problems, each from the one start of its own: `starts` [R, p]; the rest as in `descend_many`."""
    white, tables = _prepare(design, targets, weights, delta)
    phi, count = white.to_phi(np.asarray(starts, float)), len(starts)
    parts = []
    for begin in range(0, count, _PROBLEMS):
        size = min(_PROBLEMS, count - begin)
        batch = _rows_of(tables, begin, count)
        parts.append(_finish(white, batch, phi[begin : begin + size], np.arange(size, dtype=np.int32)))
    return Best(
        parameters=np.concatenate([part.phi for part in parts]) @ white.to_theta.T,
        objective=np.concatenate([part.value for part in parts]),
        converged=np.concatenate([part.converged for part in parts]),
        share_at_best=np.ones(count),
    )


def lowest_distinct(descents: Descents, count: int) -> np.ndarray:
    """Up to `count` ends [c, p] of different objectives (relative 1e-6), lowest first."""
    order = np.argsort(descents.objective)
    order = order[np.isfinite(descents.objective[order])]
    value = descents.objective[order]
    fresh = np.concatenate([[True], np.diff(np.floor(np.log(value + 1e-300) / 1e-6)) > 0])
    return descents.parameters[order[fresh][:count]]


def _rows_of(tables: Tables, begin: int, count: int) -> Tables:
    """The tables of `_PROBLEMS` problems from `begin` on; the last one fills up, so that one program serves all."""
    rows = np.minimum(np.arange(begin, begin + _PROBLEMS), count - 1)
    target, weight, delta = (table if len(table) == 1 else table[rows] for table in tables)
    return target, weight, delta


def _prepare(
    design: np.ndarray, target: np.ndarray, weights: np.ndarray | None, delta: float | np.ndarray
) -> tuple[Whitened, Tables]:
    """The whitened design, and tables of target, weight and delta with a row for each problem or one for all."""
    white = log_sum_exp.whiten(np.asarray(design, float))
    ones = np.ones(white.design.shape[1])
    return white, (
        np.atleast_2d(np.asarray(target, float)),
        np.atleast_2d(ones if weights is None else np.asarray(weights, float)),
        np.atleast_1d(np.asarray(delta, float)),
    )


def _approach(white: Whitened, tables: Tables, starts: np.ndarray) -> np.ndarray:
    """Where the starts [S, p] are after steps that see some `_FAR_ROWS` of the rows, spread over the targets."""
    phi = white.to_phi(np.asarray(starts, float))
    some = np.argsort(tables[0][0])[:: max(1, white.design.shape[1] // _FAR_ROWS)]
    far = damped_newton.problem(white.design[:, some], (tables[0][:, some], tables[1][:, some], tables[2]))
    progress = _Progress.begin(phi, np.zeros(len(phi), np.int32))
    _round(far, progress, np.arange(len(phi)), _FAR)
    return progress.phi


def _merge(phi: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """One of the places [S, p] from each cell of a grid of `width`, and the index of each start's."""
    _, first, place_of = np.unique(np.round(phi / width), axis=0, return_index=True, return_inverse=True)
    return phi[first], place_of.reshape(-1)


def _finish(white: Whitened, tables: Tables, phi: np.ndarray, problem: np.ndarray) -> _Progress:
    """Descends from phi [S, p], each for its own problem [S], until all have converged or make no headway."""
    whole = damped_newton.problem(white.design, tables)
    progress = _Progress.begin(phi, problem)
    going = np.arange(len(phi))
    for steps in _ROUNDS:
        going = going[_round(whole, progress, going, steps)]
    _round(whole, progress, _last_few(progress), _LAST)
    return progress


def _last_few(progress: _Progress) -> np.ndarray:
    """The starts of each problem that have not converged and might still end lowest."""
    lowest = np.full(progress.problem.max() + 1, np.inf)
    np.minimum.at(lowest, progress.problem, progress.value)
    might = ~progress.converged & (progress.value < _MIGHT * lowest[progress.problem])
    order = np.lexsort((progress.value, progress.problem))
    order = order[might[order]]
    first = np.searchsorted(progress.problem[order], progress.problem[order])
    return order[np.arange(len(order)) - first < _LAST_FEW]


def _round(problem: Problem, progress: _Progress, going: np.ndarray, round_: tuple[int, int]) -> np.ndarray:
    """Takes the starts `going` (indices) as many steps of each kind, on all cores; which of them should go on."""
    first, stopped = np.full(len(going), -np.inf), np.zeros(len(going), bool)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for exact, steps in zip((False, True), round_, strict=True):
        if not steps:
            continue

        def run(piece: slice, exact: bool = exact, steps: int = steps) -> None:
            members = going[piece]
            phi, before, value, gradient, converged, stop = take_steps(
                problem, progress.phi[members], progress.problem[members], exact=exact, steps=steps
            )
            progress.phi[members], progress.value[members], progress.gradient[members] = phi, value, gradient
            progress.converged[members], stopped[piece] = converged, stop
            first[piece] = np.maximum(first[piece], before)

        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(run, (slice(begin, begin + CHUNK) for begin in range(0, len(going), CHUNK))))
    return ~stopped & (progress.value[going] < (1.0 - _HEADWAY) * first)
