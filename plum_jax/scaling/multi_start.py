"""Descends thousands of starts of one small problem at once, in float64 on the CPU: damped Newton with exact Hessians.

Huber's loss with a small delta is a kinked valley: far away, reweighted least squares finds the way down where
Newton has no curvature to go by; near a minimum it converges linearly and Newton in a handful of steps. So rounds of
the one are followed by rounds of the other, and starts that have converged leave. A step is taken only when it lowers
the objective.

The process's float width and default device are left alone: all that is traced here is float64 within the call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.scaling import log_sum_exp
from plum_jax.scaling.log_sum_exp import Columns, Pattern, Rows

# (steps of reweighted least squares, steps of Newton) until all starts have converged or the rounds are over.
_ROUNDS = ((20, 8), (15, 8), (15, 8), (15, 10), (20, 10), (40, 20), (60, 40))
# Starts that go through the program at once: the arrays of 240 rows x 512 starts stay in a core's cache.
_CHUNKS = (32, 512)
_LONGEST_STEP = 5.0  # in whitened coordinates, where 1 moves log-predictions by about 1
_FIRST_DAMPING, _MOST_DAMPING = 1e-2, 1e10
_LESS, _MORE = 0.03, 8.0  # factors of the damping after a good and after a bad step
_RELATIVE_DECREASE = 1e-15  # what a full Newton step may still promise where a start has converged


@dataclasses.dataclass(frozen=True)
class Descents:
    """Where the starts ended, in the order of the starts.

    Attributes:
      parameters: [S, p].
      objective: [S], sums of weighted Huber losses.
      gradient: [S], largest component by whitened parameters.
      converged: [S] bool: a Newton step of a positive Hessian promises no more than rounding.
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


class _State(NamedTuple):
    """The starts on their way, last dimension S."""

    phi: jax.Array
    value: jax.Array
    gradient: jax.Array
    hessian: jax.Array
    damping: jax.Array
    converged: jax.Array
    stopped: jax.Array


def descend(
    design: np.ndarray,
    target: np.ndarray,
    starts: np.ndarray,
    *,
    delta: float | np.ndarray = 1e-3,
    weights: np.ndarray | None = None,
    problem: np.ndarray | None = None,
    rounds: tuple[tuple[int, int], ...] = _ROUNDS,
) -> Descents:
    """Minimises sum_i weight_i Huber_delta(log_prediction_i - target_i) from every start.

    Args:
      design: [K, n, p] terms of the law (`log_sum_exp`).
      target: [n], or [R, n] for R problems at once: logs of what was observed.
      starts: [S, p].
      delta: Huber's threshold, one for all or [R]; infinity is least squares.
      weights: [n] or [R, n]; None is 1 each. A bootstrap draw is the row of how often each run was drawn.
      problem: [S], index of each start's problem; None where there is one.
      rounds: (steps of reweighted least squares, steps of Newton) of each round.
    """
    design, starts = np.asarray(design, float), np.asarray(starts, float)
    white = log_sum_exp.whiten(design)
    problems = np.zeros(len(starts), np.int32) if problem is None else np.asarray(problem, np.int32)
    host_tables = (
        np.atleast_2d(np.asarray(target, float)),
        np.atleast_2d(np.ones(design.shape[1]) if weights is None else np.asarray(weights, float)),
        np.atleast_1d(np.asarray(delta, float)),
    )
    phi = white.to_phi(starts)
    value, gradient = np.full(len(starts), np.inf), np.full(len(starts), np.inf)
    converged, going = np.zeros(len(starts), bool), np.arange(len(starts))
    with float64_on_cpu():
        pattern, data = log_sum_exp.columns(white.design)
        tables = tuple(jnp.asarray(table) for table in host_tables)
    for exact, steps in (
        (exact, steps) for round_ in rounds for exact, steps in zip((False, True), round_, strict=True)
    ):
        job = functools.partial(_chunk, pattern, data, tables, exact=exact, steps=steps)
        pieces = _pieces(len(going))
        with ThreadPoolExecutor(_cores()) as pool:
            futures = [pool.submit(job, phi[going[p]], problems[going[p]], size) for p, size in pieces]
            results = [future.result() for future in futures]
        stopped = np.zeros(len(going), bool)
        for (piece, _), (new_phi, new_value, new_gradient, new_converged, new_stopped) in zip(
            pieces, results, strict=True
        ):
            members = going[piece]
            phi[members], value[members], gradient[members] = new_phi, new_value, new_gradient
            converged[members], stopped[piece] = new_converged, new_stopped
        if exact:
            going = going[~stopped]
        if not len(going):
            break
    return Descents(parameters=phi @ white.to_theta.T, objective=value, gradient=gradient, converged=converged)


@contextlib.contextmanager
def float64_on_cpu() -> Iterator[None]:
    """Within it jax is 64 bits wide and on the CPU; of this thread only."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pieces(count: int) -> list[tuple[slice, int]]:
    """Slices of `count` starts, each with the size of the program that takes it."""
    small, large = _CHUNKS
    pieces, begin = [], 0
    while begin < count:
        size = large if count - begin > 4 * small else small
        pieces.append((slice(begin, min(begin + size, count)), size))
        begin += size
    return pieces


def _chunk(
    pattern: Pattern,
    data: Columns,
    tables: tuple[jax.Array, ...],
    phi: np.ndarray,
    problem: np.ndarray,
    size: int,
    *,
    exact: bool,
    steps: int,
) -> tuple[np.ndarray, ...]:
    """Steps of up to `size` starts [s, p], in a thread of its own; filled up by the last start, which is cut off."""
    fill = np.minimum(np.arange(size), len(phi) - 1)
    with float64_on_cpu():
        state = _descend(pattern, data, tables, jnp.asarray(phi[fill].T), jnp.asarray(problem[fill]), exact, steps)
        new_phi, value, gradient, converged, stopped = (
            np.asarray(x)
            for x in (state.phi, state.value, jnp.abs(state.gradient).max(0), state.converged, state.stopped)
        )
    keep = slice(len(phi))
    return new_phi.T[keep], value[keep], gradient[keep], converged[keep], stopped[keep]


@functools.partial(jax.jit, static_argnums=0)
def _descend(
    pattern: Pattern,
    data: Columns,
    tables: tuple[jax.Array, ...],
    phi: jax.Array,
    problem: jax.Array,
    exact: jax.Array,
    steps: jax.Array,
) -> _State:
    """`steps` damped steps from phi [p, S]."""
    shared = [table[:1] if table.shape[0] == 1 else table[problem] for table in tables]
    target, weight, delta = (table[None] if table.ndim == 1 else table.T for table in shared)
    rows = Rows(target, weight, delta)
    value, gradient, hessian = log_sum_exp.evaluate(pattern, data, rows, phi, exact)
    nothing = jnp.zeros_like(value, bool)
    state = _State(phi, value, gradient, hessian, jnp.full_like(value, _FIRST_DAMPING), nothing, nothing)

    def step(_: int, state: _State) -> _State:
        return _step(pattern, data, rows, exact, state)

    return jax.lax.fori_loop(0, steps, step, state)


def _step(pattern: Pattern, data: Columns, rows: Rows, exact: jax.Array, state: _State) -> _State:
    """One Levenberg-Marquardt step of every start that has not stopped."""
    entries = log_sum_exp.triangle(pattern.parameters)
    diagonal = jnp.stack([abs(state.hessian[entry]) for entry, (i, j) in enumerate(entries) if i == j])
    diagonal = jnp.maximum(diagonal, 1e-12 * diagonal.max(0) + 1e-300)
    # The second part bounds each component by itself: a term that says nothing yet has hardly any curvature, and its
    # huge steps would leave nothing of the others' when the whole step is shortened. It vanishes with the gradient.
    damping = state.damping * diagonal + jnp.abs(state.gradient) / _LONGEST_STEP
    direction, positive = _solve(state.hessian, state.gradient, damping)
    direction = direction * jnp.minimum(1.0, 3.0 * _LONGEST_STEP / jnp.maximum(jnp.abs(direction).max(0), 1e-300))
    curvature = sum(
        state.hessian[entry] * direction[i] * direction[j] * (1.0 if i == j else 2.0)
        for entry, (i, j) in enumerate(entries)
    )
    promised = -((state.gradient * direction).sum(0) + 0.5 * curvature)
    phi = jnp.where(positive, state.phi + direction, state.phi)
    value, gradient, hessian = log_sum_exp.evaluate(pattern, data, rows, phi, exact)

    lower = positive & (value < state.value)
    kept = jnp.where(lower, state.value - value, 0.0) / jnp.maximum(promised, 1e-300)
    factor = jnp.where(lower, jnp.where(kept > 0.75, _LESS, jnp.where(kept < 0.25, _MORE, 1.0)), 2.0 * _MORE)
    converged = positive & (state.damping <= 1e-3) & (promised <= _RELATIVE_DECREASE * state.value + 1e-28)
    stopped = converged | (state.damping > _MOST_DAMPING)
    taken = lower & ~state.stopped
    return _State(
        phi=jnp.where(taken, phi, state.phi),
        value=jnp.where(taken, value, state.value),
        gradient=jnp.where(taken, gradient, state.gradient),
        hessian=jnp.where(taken, hessian, state.hessian),
        damping=jnp.where(state.stopped, state.damping, jnp.maximum(state.damping * factor, 1e-14)),
        converged=jnp.where(state.stopped, state.converged, converged),
        stopped=state.stopped | stopped,
    )


def _solve(hessian: jax.Array, gradient: jax.Array, damping: jax.Array) -> tuple[jax.Array, jax.Array]:
    """-(H + damping)^-1 g by Cholesky, written out over starts [.., S]; and whether H + damping is positive.

    LAPACK would be called once for every start and step: for 5 parameters that costs more than everything else.
    """
    size = gradient.shape[0]
    entry = {(i, j): hessian[index] for index, (i, j) in enumerate(log_sum_exp.triangle(size))}
    lower: dict[tuple[int, int], jax.Array] = {}
    positive = jnp.ones_like(gradient[0], bool)
    for i, j in log_sum_exp.triangle(size):
        rest = entry[i, j] - sum(lower[i, k] * lower[j, k] for k in range(j))
        if i == j:
            rest = rest + damping[i]
            positive = positive & (rest > 0)
            lower[i, i] = jnp.sqrt(jnp.maximum(rest, 1e-300))
        else:
            lower[i, j] = rest / lower[j, j]
    forward: list[jax.Array] = []
    for i in range(size):
        rest = -gradient[i] - sum(lower[i, k] * forward[k] for k in range(i))
        forward.append(rest / lower[i, i])
    solution = list(forward)
    for i in reversed(range(size)):
        rest = forward[i] - sum(lower[k, i] * solution[k] for k in range(i + 1, size))
        solution[i] = rest / lower[i, i]
    return jnp.stack(solution), positive
