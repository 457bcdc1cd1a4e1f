"""Damped Newton steps of many starts of one small problem at once: Levenberg-Marquardt with exact Hessians, float64.

Huber's loss with a small delta is a kinked valley: far away, reweighted least squares finds the way down where
Newton has no curvature to go by; near a minimum it converges linearly and Newton in a handful of steps. Which of the
two is the caller's (`exact`). A step is taken only when it lowers the objective.

The process's float width and default device are left alone: all that is traced here is float64 on the CPU.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.scaling import log_sum_exp
from plum_jax.scaling.log_sum_exp import Columns, Pattern, Rows

Tables = tuple[np.ndarray, np.ndarray, np.ndarray]  # target [R, n], weight [R, n], delta [R]; R may be 1
# Starts that go through the program at once: a dozen arrays of 240 rows x 128 starts stay near a core.
CHUNK = 128
# In whitened coordinates, where 1 moves log-predictions by about 1. A slope's step is shorter than an intercept's:
# a term that says nothing yet would turn steep to fit one run, and need long to come back.
_LONGEST_INTERCEPT, _LONGEST_SLOPE, _LONGEST = 5.0, 0.5, 15.0
_FIRST_DAMPING, _MOST_DAMPING = 1e-2, 1e10
_LEAST_DAMPING = (1e-4, 1e-14)  # of reweighted least squares, which has no use for less, and of Newton
_LESS, _MORE, _MUCH_MORE = 0.03, 4.0, 16.0  # factors of the damping after a good, a poor and a refused step
_RELATIVE_DECREASE = 1e-15  # what a full Newton step may still promise where a start has converged


class _State(NamedTuple):
    """The starts on their way, last dimension S."""

    phi: jax.Array
    value: jax.Array
    gradient: jax.Array
    hessian: jax.Array
    damping: jax.Array
    converged: jax.Array
    stopped: jax.Array


class Problem(NamedTuple):
    """Data on the device; tables have a row for each of R problems, or one for all."""

    pattern: Pattern
    data: Columns
    longest: jax.Array
    tables: tuple[jax.Array, jax.Array, jax.Array]


@contextlib.contextmanager
def float64_on_cpu() -> Iterator[None]:
    """Within it jax is 64 bits wide and on the CPU; of this thread only."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


def problem(design: np.ndarray, tables: Tables) -> Problem:
    """A whitened design [K, n, p] and tables of target [R, n], weight [R, n] and delta [R], on the device."""
    varies = np.any(np.ptp(design, axis=1) > 1e-9, axis=0)
    with float64_on_cpu():
        pattern, data = log_sum_exp.columns(design)
        longest = jnp.asarray(np.where(varies, _LONGEST_SLOPE, _LONGEST_INTERCEPT))
        target, weight, delta = (jnp.asarray(table) for table in tables)
    return Problem(pattern, data, longest, (target, weight, delta))


def take_steps(
    problem: Problem, phi: np.ndarray, index: np.ndarray, *, exact: bool, steps: int
) -> tuple[np.ndarray, ...]:
    """Steps of up to `CHUNK` starts [s, p], each of the problem `index` [s] says.

    Returns parameters, objectives before and after, the gradients' largest components, who converged, who stopped.
    """
    # Filled up by the last start, which is cut off again: one program for any number.
    fill = np.minimum(np.arange(CHUNK), len(phi) - 1)
    with float64_on_cpu():
        before, state = _descend(
            problem.pattern,
            problem.data,
            problem.longest,
            problem.tables,
            jnp.asarray(phi[fill].T),
            jnp.asarray(index[fill]),
            exact,
            steps,
        )
        arrays = (state.phi.T, before, state.value, jnp.abs(state.gradient).max(0), state.converged, state.stopped)
        return tuple(np.asarray(array)[: len(phi)] for array in arrays)


# One thread a chunk and all cores by chunks: threads within an operation would wait for each other, the more so
# beside other work.
@functools.partial(jax.jit, static_argnums=0, compiler_options={"xla_cpu_multi_thread_eigen": False})
def _descend(
    pattern: Pattern,
    data: Columns,
    longest: jax.Array,
    tables: tuple[jax.Array, jax.Array, jax.Array],
    phi: jax.Array,
    problem: jax.Array,
    exact: jax.Array,
    steps: jax.Array,
) -> tuple[jax.Array, _State]:
    """Objective at phi [p, S], and where `steps` damped steps lead from there."""
    shared = [table[:1] if table.shape[0] == 1 else table[problem] for table in tables]
    target, weight, delta = (table[None] if table.ndim == 1 else table.T for table in shared)
    rows = Rows(target, weight, delta)
    value, gradient, hessian = log_sum_exp.evaluate(pattern, data, rows, phi, exact)
    nothing = jnp.zeros_like(value, bool)
    state = _State(phi, value, gradient, hessian, jnp.full_like(value, _FIRST_DAMPING), nothing, nothing)

    def step(_: int, state: _State) -> _State:
        return _step(pattern, data, longest, rows, exact, state)

    return value, jax.lax.fori_loop(0, steps, step, state)


def _step(pattern: Pattern, data: Columns, longest: jax.Array, rows: Rows, exact: jax.Array, state: _State) -> _State:
    """One Levenberg-Marquardt step of every start that has not stopped."""
    entries = log_sum_exp.triangle(pattern.parameters)
    diagonal = jnp.stack([abs(state.hessian[entry]) for entry, (i, j) in enumerate(entries) if i == j])
    diagonal = jnp.maximum(diagonal, 1e-12 * diagonal.max(0) + 1e-300)
    # The second part bounds each component by itself: a term that says nothing yet has hardly any curvature, and its
    # huge steps would leave nothing of the others' when the whole step is shortened. It vanishes with the gradient.
    damping = state.damping * diagonal + jnp.abs(state.gradient) / longest[:, None]
    direction, positive = _solve(state.hessian, state.gradient, damping)
    direction = direction * jnp.minimum(1.0, _LONGEST / jnp.maximum(jnp.abs(direction).max(0), 1e-300))
    curvature = sum(
        state.hessian[entry] * direction[i] * direction[j] * (1.0 if i == j else 2.0)
        for entry, (i, j) in enumerate(entries)
    )
    promised = -((state.gradient * direction).sum(0) + 0.5 * curvature)
    phi = jnp.where(positive, state.phi + direction, state.phi)
    value, gradient, hessian = log_sum_exp.evaluate(pattern, data, rows, phi, exact)

    lower = positive & (value < state.value)
    kept = jnp.where(lower, state.value - value, 0.0) / jnp.maximum(promised, 1e-300)
    factor = jnp.where(lower, jnp.where(kept > 0.75, _LESS, jnp.where(kept < 0.25, _MORE, 1.0)), _MUCH_MORE)
    converged = positive & (state.damping <= 1e-3) & (promised <= _RELATIVE_DECREASE * state.value + 1e-28)
    stopped = converged | (state.damping > _MOST_DAMPING)
    taken = lower & ~state.stopped
    least = jnp.where(exact, _LEAST_DAMPING[1], _LEAST_DAMPING[0])
    return _State(
        phi=jnp.where(taken, phi, state.phi),
        value=jnp.where(taken, value, state.value),
        gradient=jnp.where(taken, gradient, state.gradient),
        hessian=jnp.where(taken, hessian, state.hessian),
        damping=jnp.where(state.stopped, state.damping, jnp.maximum(state.damping * factor, least)),
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
