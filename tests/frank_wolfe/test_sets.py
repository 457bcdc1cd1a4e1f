"""Each oracle's answer lies in its set and is no worse than any other point of it; its violation is the norm's."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis.extra import numpy as arrays

from plum_jax.frank_wolfe.nuclear_ball import NuclearBall, leading_pair
from plum_jax.frank_wolfe.sets import Box, KSparsePolytope, L1Ball, L2Ball, Simplex, first_greatest

SETS = [Simplex(2.0), L1Ball(3.0), L2Ball(1.5), Box(-1.0, 2.0), KSparsePolytope(2, 0.5), NuclearBall(2.0, shape=(2, 3))]
gradients = arrays.arrays(np.float32, 6, elements=st.floats(-10, 10, width=32))


def points_of(domain, draw: np.random.Generator) -> np.ndarray:
    """Two hundred random points of a set: [200, 6]."""
    raw = draw.normal(size=(200, 6))
    if isinstance(domain, Simplex):
        return domain.radius * draw.dirichlet(np.ones(6), 200)
    if isinstance(domain, Box):
        return draw.uniform(domain.low, domain.high, (200, 6))
    outside = np.array([float(_norm_over_bound(domain, point)) for point in raw])
    return raw / outside[:, None] * draw.uniform(size=(200, 1))


def _norm_over_bound(domain, point):
    if isinstance(domain, L1Ball):
        return np.abs(point).sum() / domain.radius
    if isinstance(domain, L2Ball):
        return np.linalg.norm(point) / domain.radius
    if isinstance(domain, KSparsePolytope):
        return max(np.abs(point).max() / domain.radius, np.abs(point).sum() / (domain.k * domain.radius))
    return np.linalg.svd(point.reshape(domain.shape), compute_uv=False).sum() / domain.radius


@pytest.mark.parametrize("domain", SETS, ids=lambda domain: type(domain).__name__)
@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.example(gradient=np.full(6, 2e-20, np.float32))  # its squares are zero
@hypothesis.given(gradient=gradients)
def test_no_point_of_the_set_is_better_than_the_oracles(domain, gradient):
    vertex = np.asarray(domain.vertex(jnp.asarray(gradient)))
    assert vertex.dtype == np.float32
    assert float(domain.violation(jnp.asarray(vertex))) < 1e-5
    others = points_of(domain, np.random.default_rng(0))
    for other in others[:5]:
        assert float(domain.violation(jnp.asarray(other, jnp.float32))) < 1e-5
    # Power iteration finds nearly the first singular pair where the second is nearly as great.
    slack = 1e-3 * np.abs(gradient).max() if isinstance(domain, NuclearBall) else 1e-4
    assert gradient @ vertex <= (others @ gradient).min() + slack


@pytest.mark.parametrize("domain", SETS, ids=lambda domain: type(domain).__name__)
def test_a_point_outside_is_said_to_be(domain):
    point = jnp.full(6, 40.0)
    assert float(domain.violation(point)) > 1.0
    assert float(domain.violation(domain.start(point))) < 1e-5


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(gradient=gradients)
def test_the_k_sparse_oracle_is_the_best_of_all_its_vertices(gradient):
    domain = KSparsePolytope(2, 0.5)
    best = min(
        sum(sign * 0.5 * gradient[place] for sign, place in zip(signs, places, strict=True))
        for places in itertools.combinations(range(6), 2)
        for signs in itertools.product((-1, 1), repeat=2)
    )
    assert gradient @ np.asarray(domain.vertex(jnp.asarray(gradient))) == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("domain", [Simplex(2.0), L1Ball(3.0)], ids=lambda domain: type(domain).__name__)
def test_vertices_and_weights_of_a_polytope_belong_together(domain):
    draw = np.random.default_rng(1)
    gradient, point = jnp.asarray(draw.normal(size=5)), np.abs(draw.normal(size=5))
    point = jnp.asarray(2.0 * point / point.sum())
    weights, scores = domain.weights(point), domain.vertex_scores(gradient)
    vertices = [np.asarray(domain.vertex_at(jnp.int32(index), point)) for index in range(len(scores))]
    np.testing.assert_allclose(np.asarray(weights) @ vertices, point, atol=1e-6)
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-6) and float(weights.min()) >= 0
    np.testing.assert_allclose(np.stack(vertices) @ np.asarray(gradient), scores, rtol=1e-5)
    np.testing.assert_array_equal(vertices[int(jnp.argmin(scores))], domain.vertex(gradient))


@pytest.mark.parametrize("size", [7, 1024, 1025, 5000])
def test_the_first_of_the_greatest_is_numpys(size):
    values = np.random.default_rng(size).integers(0, 50, size).astype(np.float32)
    assert int(first_greatest(jnp.asarray(values))) == int(np.argmax(values))


def test_the_leading_pair_is_lapacks():
    matrix = np.random.default_rng(2).normal(size=(12, 7)).astype(np.float32)
    left, value, right = leading_pair(lambda v: matrix @ v, lambda u: u @ matrix, 7, 200)
    u, s, vt = np.linalg.svd(matrix)
    assert float(value) == pytest.approx(s[0], rel=1e-5)
    np.testing.assert_allclose(np.outer(left, right), np.outer(u[:, 0], vt[0]), atol=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Simplex(0.0),
        lambda: L1Ball(-1.0),
        lambda: L2Ball(float("nan")),
        lambda: Box(1.0, 1.0),
        lambda: KSparsePolytope(0),
        lambda: NuclearBall(0.0),
    ],
)
def test_an_empty_set_is_refused(make):
    with pytest.raises(ValueError, match="the set would be empty"):
        make()


def test_too_few_coordinates_and_no_matrix_are_refused():
    with pytest.raises(ValueError, match="expected at least k = 9 coordinates, got 6"):
        KSparsePolytope(9).vertex(jnp.zeros(6))
    with pytest.raises(ValueError, match=r"expected a matrix, got an array of shape \(6,\): set `shape`"):
        NuclearBall(1.0).vertex(jnp.zeros(6))
