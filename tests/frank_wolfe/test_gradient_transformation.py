"""Frank-Wolfe in Optax: the deterministic method on any loss, feasible at every step, and in the project's Trainer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from planted import logistic

from plum_jax.frank_wolfe.gradient_transformation import frank_wolfe
from plum_jax.frank_wolfe.nuclear_ball import NuclearBall
from plum_jax.frank_wolfe.sets import L1Ball
from plum_jax.frank_wolfe.solve import solve


def test_it_makes_the_steps_of_the_deterministic_solver():
    problem = logistic()
    transformation = frank_wolfe(problem.domain)
    point = problem.domain.start(jnp.zeros(8))
    state, gaps = transformation.init(point), []
    for _ in range(50):
        updates, state = transformation.update(jax.grad(problem.objective)(point), state, point)
        point = optax.apply_updates(point, updates)
        gaps.append(float(state.gap))
    found = solve(problem, batch_size=60, passes=50)
    np.testing.assert_allclose(point, found.point, atol=1e-5)
    np.testing.assert_allclose(gaps, found.estimated_gap, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("average", [False, True])
def test_every_array_is_in_the_set_after_every_step_wherever_it_began(average):
    draw = np.random.default_rng(0)
    domain = NuclearBall(2.0)
    params = {"a": jnp.asarray(draw.normal(size=(4, 3)) * 9), "b": jnp.asarray(draw.normal(size=(2, 5)) * 9)}
    transformation = frank_wolfe(domain, average)
    state = transformation.init(params)
    update = jax.jit(transformation.update)
    for _ in range(10):
        gradients = jax.tree.map(lambda w: jnp.asarray(draw.normal(size=w.shape)), params)
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        assert max(float(domain.violation(leaf)) for leaf in jax.tree.leaves(params)) < 1e-4


def test_averaging_reaches_an_optimum_that_noise_keeps_the_plain_method_from():
    domain, goal = L1Ball(1.0), jnp.array([0.5, -0.2, 0.1])
    ends = {}
    for average in (False, True):
        transformation = frank_wolfe(domain, average)
        draw, point = np.random.default_rng(1), jnp.zeros(3)
        state, update = transformation.init(point), jax.jit(transformation.update)
        for _ in range(1500):
            gradient = point - goal + jnp.asarray(draw.normal(size=3))
            updates, state = update(gradient, state, point)
            point = optax.apply_updates(point, updates)
        ends[average] = float(jnp.linalg.norm(point - goal))
    assert ends[True] < 0.6 * ends[False], ends


def test_without_parameters_it_says_what_is_missing():
    transformation = frank_wolfe(L1Ball(1.0))
    with pytest.raises(ValueError, match="expected parameters beside gradients"):
        transformation.update(jnp.ones(3), transformation.init(jnp.ones(3)))
