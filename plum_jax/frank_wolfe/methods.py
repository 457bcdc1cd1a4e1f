"""How a step is made of a batch of rows: the paper's method, its SAGA variant, and its rivals.

A method is a frozen dataclass with

    init(problem, point, batch_size): the state before the first step;
    step(problem, state, rows): the state after a step on these rows ([b], distinct).

Every state has `point` [D], which lies in the set, `gradient` [D], what the method takes for F's gradient, `step`, the
number of steps made, and `gap`, the last step's estimate <gradient, point - s> of the Frank-Wolfe gap where it began.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from plum_jax.frank_wolfe.problem import FiniteSum, gap_at
from plum_jax.frank_wolfe.sets import Polytope
from plum_jax.frank_wolfe.step_sizes import OpenLoop, ShortStep, averaging


class State(Protocol):
    """What all states have."""

    point: jax.Array
    gradient: jax.Array
    step: jax.Array
    gap: jax.Array


class Method(Protocol):
    """A way to make steps (see the module)."""

    def init(self, problem: FiniteSum, point: jax.Array, batch_size: int) -> Any: ...

    def step(self, problem: FiniteSum, state: Any, rows: jax.Array) -> Any: ...


class TableState(NamedTuple):
    """Of methods that keep a derivative for each row.

    Attributes:
      point, step, gap: see the module.
      gradient: X' duals, always.
      duals: [n], f'(x_i' w, y_i) / n as of the last time that row i was seen; 0 before.
      smoothness: of F.
    """

    point: jax.Array
    gradient: jax.Array
    step: jax.Array
    gap: jax.Array
    duals: jax.Array
    smoothness: jax.Array


@dataclasses.dataclass(frozen=True)
class Sag:
    """Stochastic Frank-Wolfe of arXiv 2002.11860: the gradient is X' a, of which a step renews the rows of its batch.

    With all rows in a batch it is the deterministic method.

    Attributes:
      step_size: `OpenLoop` (the paper's) or `ShortStep`.
      saga: the oracle gets the unbiased estimate instead, X' a + (n / b - 1) * (what the batch has changed); the gap is
        still estimated by X' a. Of the authors' code (copt); the paper does not have it.
    """

    step_size: OpenLoop | ShortStep = OpenLoop()
    saga: bool = False

    def init(self, problem: FiniteSum, point: jax.Array, batch_size: int) -> TableState:
        """No row has been seen."""
        smoothness = _smoothness_for(self.step_size, problem)
        return TableState(*_unmoved(point), jnp.zeros_like(problem.targets), smoothness)

    def step(self, problem: FiniteSum, state: TableState, rows: jax.Array) -> TableState:
        """Renews the duals of `rows`, asks the oracle, and goes there."""
        gradient, duals, change = _renewed(problem, state, rows)
        asked = gradient
        if self.saga:
            asked = problem.features.add(gradient, rows, (duals.shape[0] / rows.shape[0] - 1.0) * change)
        direction = problem.domain.vertex(asked) - state.point
        slope = -jnp.vdot(asked, direction)
        size = self.step_size.size(state.step, slope, direction, state.smoothness)
        gap = gap_at(problem.domain, gradient, state.point) if self.saga else slope
        return TableState(state.point + size * direction, gradient, state.step + 1, gap, duals, state.smoothness)


class PairwiseState(NamedTuple):
    """`TableState` with the weight of every vertex, [V]."""

    point: jax.Array
    gradient: jax.Array
    step: jax.Array
    gap: jax.Array
    duals: jax.Array
    smoothness: jax.Array
    weights: jax.Array


@dataclasses.dataclass(frozen=True)
class Pairwise:
    """Weight moves from the worst vertex that has some to the oracle's (Lacoste-Julien and Jaggi, 2015).

    By the same table of duals as `Sag`, so that a batch of all rows is the published method; short steps, at most the
    weight that there is. Needs a set of few vertices (`sets.Polytope`).
    """

    def init(self, problem: FiniteSum, point: jax.Array, batch_size: int) -> PairwiseState:
        """The start as a combination of vertices.

        Raises:
          ValueError: a set whose vertices are too many.
        """
        domain = _polytope(problem)
        table = Sag(ShortStep()).init(problem, point, batch_size)
        return PairwiseState(*table, domain.weights(point))

    def step(self, problem: FiniteSum, state: PairwiseState, rows: jax.Array) -> PairwiseState:
        """Moves weight, and the point along with it."""
        domain = _polytope(problem)
        gradient, duals, _ = _renewed(problem, state, rows)
        scores = domain.vertex_scores(gradient)
        best, worst = jnp.argmin(scores), jnp.argmax(jnp.where(state.weights > 0, scores, -jnp.inf))
        direction = domain.vertex_at(best, state.point) - domain.vertex_at(worst, state.point)
        size = ShortStep().size(state.step, scores[worst] - scores[best], direction, state.smoothness)
        size = jnp.minimum(size, state.weights[worst])
        weights = state.weights.at[worst].add(-size).at[best].add(size)
        gap = jnp.vdot(gradient, state.point) - scores[best]
        point = state.point + size * direction
        return PairwiseState(point, gradient, state.step + 1, gap, duals, state.smoothness, weights)


class MomentumState(NamedTuple):
    """Nothing is kept for each row."""

    point: jax.Array
    gradient: jax.Array
    step: jax.Array
    gap: jax.Array


@dataclasses.dataclass(frozen=True)
class Momentum:
    """Mokhtari, Hassani and Karbasi (arXiv 1804.09554), as printed: d <- (1 - rho) d + rho (the batch's gradient).

    rho is `step_sizes.averaging`, the step 2 / (t + 8). copt's variant instead keeps a table and leaves unseen rows as
    they are.
    """

    def init(self, problem: FiniteSum, point: jax.Array, batch_size: int) -> MomentumState:
        """d = 0; the first rho is 1."""
        return MomentumState(*_unmoved(point))

    def step(self, problem: FiniteSum, state: MomentumState, rows: jax.Array) -> MomentumState:
        """Averages, asks the oracle, and goes there."""
        slopes = problem.loss.derivative(problem.features.predict(rows, state.point), problem.targets[rows])
        rho = averaging(state.step)
        gradient = problem.features.add((1.0 - rho) * state.gradient, rows, rho / rows.shape[0] * slopes)
        direction = problem.domain.vertex(gradient) - state.point
        point = state.point + 2.0 / (state.step + 8.0) * direction
        return MomentumState(point, gradient, state.step + 1, -jnp.vdot(gradient, direction))


class SubstituteState(NamedTuple):
    """Of Lu and Freund's method.

    Attributes:
      point, step, gap: see the module.
      gradient: X' f'(predictions, y) / n.
      predictions: [n], a substitute for X w: moved towards the oracle's answers, not computed anew.
    """

    point: jax.Array
    gradient: jax.Array
    step: jax.Array
    gap: jax.Array
    predictions: jax.Array


@dataclasses.dataclass(frozen=True)
class Substitute:
    """Lu and Freund (arXiv 1806.05123): a substitute gradient from predictions that follow the oracle's answers.

    With m = n / b: delta = 2 m / (2 m + t + 1), step 2 (2 m + t) / ((t + 1) (4 m + t)), at most 1. The first gradient
    is that of the start, one pass more than the others take.
    """

    def init(self, problem: FiniteSum, point: jax.Array, batch_size: int) -> SubstituteState:
        """Predictions and gradient of the start."""
        unmoved = SubstituteState(*_unmoved(point), problem.features.predict_all(point))
        return unmoved._replace(gradient=problem.gradient(point))

    def step(self, problem: FiniteSum, state: SubstituteState, rows: jax.Array) -> SubstituteState:
        """Asks the oracle, moves the batch's predictions towards its answer, then the point."""
        count = problem.targets.shape[0]
        blocks, t = count / rows.shape[0], state.step
        vertex = problem.domain.vertex(state.gradient)
        before, targets = state.predictions[rows], problem.targets[rows]
        delta = 2.0 * blocks / (2.0 * blocks + t + 1.0)
        after = before + delta * (problem.features.predict(rows, vertex) - before)
        change = (problem.loss.derivative(after, targets) - problem.loss.derivative(before, targets)) / count
        gradient = problem.features.add(state.gradient, rows, change)
        size = jnp.minimum(1.0, 2.0 * (2.0 * blocks + t) / ((t + 1.0) * (4.0 * blocks + t)))
        point = state.point + size * (vertex - state.point)
        gap = jnp.vdot(state.gradient, state.point - vertex)
        return SubstituteState(point, gradient, t + 1, gap, state.predictions.at[rows].set(after))


def _unmoved(point: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """What all states begin with: a gap that no tolerance takes for an end."""
    return point, jnp.zeros_like(point), jnp.int32(0), jnp.full((), jnp.inf, point.dtype)


def _renewed(
    problem: FiniteSum, state: TableState | PairwiseState, rows: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradient, duals [n] and their change [b] after the derivatives of `rows` are taken at the point."""
    predictions = problem.features.predict(rows, state.point)
    slopes = problem.loss.derivative(predictions, problem.targets[rows]) / problem.targets.shape[0]
    change = slopes - state.duals[rows]
    return problem.features.add(state.gradient, rows, change), state.duals.at[rows].set(slopes), change


def _smoothness_for(step_size: OpenLoop | ShortStep, problem: FiniteSum) -> jax.Array:
    if isinstance(step_size, OpenLoop):
        return jnp.ones((), problem.targets.dtype)
    return problem.smoothness()


def _polytope(problem: FiniteSum) -> Polytope:
    domain: Any = problem.domain
    if not hasattr(domain, "vertex_scores"):
        name = type(domain).__name__
        raise ValueError(f"Pairwise: expected a set of few vertices (Simplex, L1Ball), got {name}: use Sag")
    return domain
