"""The loop: passes over random rows as one compiled scan, until the gap is small enough."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.frank_wolfe.methods import Method, Sag
from plum_jax.frank_wolfe.problem import FiniteSum

_MAX_STRIDES = 100_000


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """Where a run ended, and its figures after each pass.

    Attributes:
      point: [D], in the set: the mean of the points after the last pass's steps.
      passes: over the rows that were made.
      converged: the gap is at most the tolerance, so that the objective is at most so far above the least.
      estimated_gap: [passes], <r, w - s> by the method's own gradient r, where the pass's last step began.
      objective, gap: [passes], the exact figures of the mean of its points; None where they were not asked for.
    """

    point: np.ndarray
    passes: int
    converged: bool
    estimated_gap: np.ndarray
    objective: np.ndarray | None
    gap: np.ndarray | None


class _Carry(NamedTuple):
    state: Any
    mean: jax.Array
    done: jax.Array
    stopped: jax.Array


class _Figures(NamedTuple):
    estimated_gap: jax.Array
    objective: jax.Array
    gap: jax.Array


def solve(
    problem: FiniteSum,
    method: Method | None = None,
    *,
    batch_size: int = 1,
    passes: int = 100,
    tolerance: float = 0.0,
    seed: int = 0,
    start: np.ndarray | None = None,
    exact_figures: bool = False,
) -> Solution:
    """Minimises by `method` until the Frank-Wolfe gap is at most `tolerance`.

    The method's estimate says, at no cost, when it is worth to look: where it is at most `tolerance` after a pass, the
    true gap is computed, which takes a pass, and decides. (The paper stops by the estimate alone, which is less than
    the true gap: `experiments/frank_wolfe` says by how much.)

    What is returned and judged is the mean of a pass's points, not the last one as in the paper: steps go to and fro
    between vertices, and the mean's gap is a half to a third of the last point's at the same objective.

    A pass is n / b steps, rounded up. Each step draws its batch anew, every row as likely and none twice, as in the
    paper: of a random order of the rows it takes b places, a random stride apart, from a random one on, which is much
    cheaper than to draw b of n. (To go through the shuffled rows one after the other is no substitute: on
    a problem of RCV1's shape the objective ended 1 to 20% higher.)

    Args:
      problem: of `finite_sum`.
      method: of `plum_jax.frank_wolfe.methods`; None: the paper's.
      batch_size: rows of a step, from 1 to n.
      passes: at most.
      tolerance: of the gap; 0 makes all passes.
      seed: of the order.
      start: [D], in the set; None: a vertex.
      exact_figures: whether to compute objective and true gap after each pass, which costs a pass.

    Raises:
      ValueError: a batch size that is not between 1 and n, no pass, a start of another shape or outside the set.
    """
    count, width = problem.features.shape
    if not 1 <= batch_size <= count:
        raise ValueError(f"expected a batch_size from 1 to the {count} rows, got {batch_size}")
    if passes < 1:
        raise ValueError(f"expected at least one pass, got {passes}")
    point = _start(problem, start, width)
    method = method if method is not None else Sag()
    end, figures = _passes(
        problem, point, jax.random.key(seed), jnp.float32(tolerance), method, batch_size, passes, exact_figures
    )
    made = int(end.done)
    estimated, objective, gap = (np.asarray(figure)[:made] for figure in figures)
    exact = (objective, gap) if exact_figures else (None, None)
    return Solution(np.asarray(end.mean), made, bool(end.stopped), estimated, *exact)


def _start(problem: FiniteSum, start: np.ndarray | None, width: int) -> jax.Array:
    like = jnp.zeros(width, problem.targets.dtype)
    if start is None:
        return problem.domain.start(like)
    if np.shape(start) != (width,):
        raise ValueError(f"expected a start of {width} numbers, one a column of features, got shape {np.shape(start)}")
    point = jnp.asarray(start, like.dtype)
    outside = float(problem.domain.violation(point))
    if not outside <= 1e-4 * max(1.0, float(jnp.max(jnp.abs(point)))):
        raise ValueError(f"expected a start inside {problem.domain}, got one that is {outside:.4g} outside")
    return point


@functools.partial(jax.jit, static_argnames=("method", "batch_size", "passes", "exact_figures"))
def _passes(
    problem: FiniteSum,
    point: jax.Array,
    key: jax.Array,
    tolerance: jax.Array,
    method: Method,
    batch_size: int,
    passes: int,
    exact_figures: bool,
) -> tuple[_Carry, _Figures]:
    count = problem.targets.shape[0]
    batches = math.ceil(count / batch_size)
    strides = jnp.asarray(_strides(count, batch_size))
    key, for_order = jax.random.split(key)
    order = jax.random.permutation(for_order, count)

    def one_pass(carry: _Carry, number: jax.Array) -> tuple[_Carry, _Figures]:
        state, done = carry.state, carry.done
        for_places, for_strides = jax.random.split(jax.random.fold_in(key, number))
        places = jax.random.randint(for_places, (batches,), 0, count)

        def one_step(
            now: tuple[Any, jax.Array], drawn: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[Any, jax.Array], None]:
            (state, total), (place, stride) = now, drawn
            rows = order[(place + stride * jnp.arange(batch_size)) % count]
            state = method.step(problem, state, rows)
            return (state, total + state.point), None

        drawn = places, jax.random.choice(for_strides, strides, (batches,))
        (state, total), _ = jax.lax.scan(one_step, (state, jnp.zeros_like(point)), drawn)
        mean = total / batches
        figures = _figures(problem, state.gap, mean, tolerance, exact_figures)
        return _Carry(state, mean, done + 1, figures.gap <= tolerance), figures

    def skipped(carry: _Carry, number: jax.Array) -> tuple[_Carry, _Figures]:
        nothing = jnp.zeros((), point.dtype)
        return carry, _Figures(nothing, nothing, nothing)

    def unless_stopped(carry: _Carry, number: jax.Array) -> tuple[_Carry, _Figures]:
        return jax.lax.cond(carry.stopped, skipped, one_pass, carry, number)

    first = _Carry(method.init(problem, point, batch_size), point, jnp.int32(0), jnp.bool_(False))
    return jax.lax.scan(unless_stopped, first, jnp.arange(passes))


def _strides(count: int, batch_size: int) -> np.ndarray:
    """Strides that meet every place once before one comes again, and whose multiples fit into 32 bits."""
    most = min(count, (2**31 - 1 - count) // batch_size, _MAX_STRIDES)
    strides = np.arange(1, max(most, 1) + 1, dtype=np.int32)
    return strides[np.gcd(strides, count) == 1]


def _figures(
    problem: FiniteSum, estimated_gap: jax.Array, point: jax.Array, tolerance: jax.Array, exact: bool
) -> _Figures:
    if exact:
        return _Figures(estimated_gap, problem.objective(point), problem.gap(point))
    unknown = jnp.full_like(estimated_gap, jnp.inf)
    looks_done = (tolerance > 0) & (estimated_gap <= tolerance)
    return _Figures(estimated_gap, unknown, jax.lax.cond(looks_done, problem.gap, lambda _: unknown, point))
