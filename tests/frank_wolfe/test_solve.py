"""r = X'a, a batch of all rows is the deterministic method, every point is feasible, the optimum is a library's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from planted import least_squares, logistic
from sklearn.linear_model import Lasso, LogisticRegression

from plum_jax.frank_wolfe import losses, sets
from plum_jax.frank_wolfe.features import as_features
from plum_jax.frank_wolfe.methods import Momentum, Pairwise, Sag, Substitute
from plum_jax.frank_wolfe.nuclear_ball import NuclearBall
from plum_jax.frank_wolfe.problem import finite_sum
from plum_jax.frank_wolfe.solve import solve
from plum_jax.frank_wolfe.step_sizes import OpenLoop, ShortStep

METHODS = [Sag(), Sag(ShortStep()), Sag(saga=True), Pairwise(), Momentum(), Substitute()]
DOMAINS = [sets.Simplex(2.0), sets.L1Ball(3.0), sets.L2Ball(1.5), sets.Box(-1.0, 2.0), sets.KSparsePolytope(2, 0.5)]
each_method = pytest.mark.parametrize("method", METHODS, ids=str)


def states_of(problem, method, batch_size: int, steps: int):
    """The states after each step of random batches."""
    draw = np.random.default_rng(0)
    count, width = problem.features.shape
    state, step = method.init(problem, problem.domain.start(jnp.zeros(width)), batch_size), jax.jit(method.step)
    for _ in range(steps):
        state = step(problem, state, jnp.asarray(draw.choice(count, batch_size, replace=False)))
        yield state


@pytest.mark.parametrize("method", [Sag(), Sag(saga=True), Pairwise()], ids=str)
def test_the_gradient_is_the_duals_combination_at_every_step(method):
    problem = logistic()
    for state in states_of(problem, method, 7, 60):
        np.testing.assert_allclose(state.gradient, problem.features.combine_all(state.duals), atol=1e-6)


def test_the_substitute_gradient_is_that_of_its_predictions_at_every_step():
    problem = logistic()
    for state in states_of(problem, Substitute(), 7, 60):
        slopes = problem.loss.derivative(state.predictions, problem.targets) / 60
        np.testing.assert_allclose(state.gradient, problem.features.combine_all(slopes), atol=1e-6)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: type(domain).__name__)
@pytest.mark.parametrize("method", [method for method in METHODS if not isinstance(method, Pairwise)], ids=str)
def test_every_point_is_in_the_set(method, domain):
    problem = least_squares(domain)
    for state in states_of(problem, method, 7, 40):
        assert float(domain.violation(state.point)) < 1e-5


def test_every_pairwise_point_is_in_the_set_and_is_what_its_weights_make():
    for domain in (sets.Simplex(2.0), sets.L1Ball(3.0)):
        for state in states_of(least_squares(domain), Pairwise(), 7, 40):
            assert float(domain.violation(state.point)) < 1e-5
            vertices = [domain.vertex_at(jnp.int32(i), state.point) for i in range(len(state.weights))]
            np.testing.assert_allclose(np.asarray(state.weights) @ np.stack(vertices), state.point, atol=1e-5)


def deterministic(problem, steps: int) -> tuple[np.ndarray, list[float]]:
    """Frank-Wolfe with 2 / (t + 2) in plain NumPy, 64 bits, l1 ball: the last point, and the gap before each step."""
    features, targets = np.asarray(problem.features.matrix, np.float64), np.asarray(problem.targets, np.float64)
    point, gaps = np.zeros(features.shape[1]), []
    point[0] = problem.domain.radius
    for t in range(steps):
        gradient = features.T @ (1 / (1 + np.exp(-features @ point)) - targets) / len(targets)
        place = np.argmax(np.abs(gradient))
        vertex = np.zeros_like(point)
        vertex[place] = -np.sign(gradient[place]) * problem.domain.radius
        gaps.append(gradient @ (point - vertex))
        point = point + 2 / (t + 2) * (vertex - point)
    return point, gaps


def test_a_batch_of_all_rows_is_the_deterministic_method_and_its_estimate_is_the_gap():
    problem = logistic()
    found = solve(problem, batch_size=60, passes=50, exact_figures=True)
    point, gaps = deterministic(problem, 50)
    np.testing.assert_allclose(found.point, point, atol=1e-5)
    np.testing.assert_allclose(found.estimated_gap, gaps, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.gap[:-1], gaps[1:], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_the_optimum_of_least_squares_is_scikit_learns(batch_size):
    problem = least_squares(sets.L1Ball(1.0))  # any ball, for its arrays
    features, targets = np.asarray(problem.features.matrix, np.float64), np.asarray(problem.targets, np.float64)
    lasso = Lasso(alpha=0.2, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(features, targets)
    problem = finite_sum(features, targets, losses.Squared(), sets.L1Ball(float(np.abs(lasso.coef_).sum())))
    best = 0.5 * np.mean((features @ lasso.coef_ - targets) ** 2)
    found = solve(problem, batch_size=batch_size, passes=3000, exact_figures=True)
    assert found.objective[-1] - best < 1e-4
    assert found.objective.min() > best - 1e-5
    assert np.all(found.gap > found.objective - best - 1e-5)  # the gap bounds the suboptimality of every pass


def test_the_optimum_of_logistic_regression_is_scikit_learns():
    problem = logistic()
    features, labels = np.asarray(problem.features.matrix, np.float64), np.asarray(problem.targets)
    model = LogisticRegression(l1_ratio=1.0, C=0.3, solver="liblinear", fit_intercept=False, tol=1e-10, max_iter=10_000)
    coefficients = model.fit(features, labels).coef_[0]
    problem = finite_sum(features, labels, losses.Logistic(), sets.L1Ball(float(np.abs(coefficients).sum())))
    best = float(problem.objective(jnp.asarray(coefficients, jnp.float32)))
    for method in (Sag(), Sag(saga=True), Pairwise(), Substitute()):
        assert abs(solve(problem, method, batch_size=5, passes=2000, exact_figures=True).objective[-1] - best) < 1e-4


def test_a_matrix_is_completed_within_the_nuclear_ball():
    draw = np.random.default_rng(3)
    truth = np.outer(draw.normal(size=6), draw.normal(size=5))
    domain = NuclearBall(float(np.linalg.svd(truth, compute_uv=False).sum()), shape=(6, 5))
    seen = np.flatnonzero(draw.random(30) < 0.8)
    problem = finite_sum(np.eye(30)[seen], truth.ravel()[seen], losses.Squared(), domain)
    found = solve(problem, Sag(ShortStep()), batch_size=len(seen), passes=400)
    assert float(domain.violation(jnp.asarray(found.point))) < 1e-4
    np.testing.assert_allclose(found.point.reshape(6, 5), truth, atol=0.1)


@each_method
def test_sparse_rows_give_what_dense_ones_give(method):
    draw = np.random.default_rng(4)
    dense = np.where(draw.random((40, 12)) < 0.3, draw.normal(size=(40, 12)), 0.0)
    labels = (draw.random(40) < 0.5).astype(float)
    arguments = (labels, losses.Logistic(), sets.L1Ball(2.0))
    ends = []
    for matrix in (dense, scipy.sparse.csr_array(dense)):
        *_, last = states_of(finite_sum(matrix, *arguments), method, 5, 30)
        ends.append(last.point)
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-5)
    features = as_features(scipy.sparse.csr_array(dense))
    np.testing.assert_allclose(features.combine_all(jnp.asarray(labels)), labels @ dense, atol=1e-5)


def test_slopes_on_log_log_are_the_theorys():
    """Gap ~ 1/t for the paper's method and the deterministic one (their theorems), slower for momentum (t^-1/3)."""
    draw = np.random.default_rng(5)
    features = draw.normal(size=(100, 20))
    targets = features @ np.full(20, 0.05)  # the optimum is inside a face: no faster rate is to be had
    problem = finite_sum(features, targets, losses.Squared(), sets.Simplex())
    slopes = {}
    for name, method, batch_size in (("sag", Sag(), 10), ("full", Sag(), 100), ("momentum", Momentum(), 10)):
        gaps = solve(problem, method, batch_size=batch_size, passes=2000, exact_figures=True).gap
        passes = np.arange(1, 2001)
        window = [np.log(gaps[2**i : 2 ** (i + 1)].mean()) for i in range(4, 10)]
        middle = [np.log(passes[2**i : 2 ** (i + 1)].mean()) for i in range(4, 10)]
        slopes[name] = np.polyfit(middle, window, 1)[0]
    assert -1.3 < slopes["sag"] < -0.7
    assert -1.3 < slopes["full"] < -0.7
    assert slopes["sag"] + 0.2 < slopes["momentum"] < -0.2


def test_the_estimate_is_near_the_true_gap_at_the_end():
    found = solve(logistic(), batch_size=6, passes=600, exact_figures=True)
    ratio = found.estimated_gap[-200:].mean() / found.gap[-200:].mean()
    assert 0.25 < ratio < 1.5


def test_it_stops_where_the_gap_is_small_and_says_so():
    problem = logistic()
    found = solve(problem, batch_size=6, passes=2000, tolerance=1e-2)
    assert found.converged and found.passes < 2000 and len(found.estimated_gap) == found.passes
    assert float(problem.gap(jnp.asarray(found.point))) <= 1e-2
    assert found.objective is None
    longer = solve(problem, batch_size=6, passes=found.passes - 1, tolerance=1e-2)
    assert not longer.converged and longer.passes == found.passes - 1


def test_the_seed_decides():
    problem = logistic()
    first, again, other = (solve(problem, batch_size=6, passes=5, seed=seed).point for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_step_sizes_are_those_of_the_papers():
    at = [float(OpenLoop().size(jnp.float32(t), 0.0, jnp.ones(2), 1.0)) for t in range(3)]
    np.testing.assert_allclose(at, [1.0, 2 / 3, 0.5])
    assert float(ShortStep().size(0, jnp.float32(1.0), jnp.full(4, 2.0), jnp.float32(0.5))) == pytest.approx(1 / 8)
    assert float(ShortStep().size(0, jnp.float32(1e9), jnp.full(4, 2.0), jnp.float32(0.5))) == 1.0


BAD = {
    "expected a batch_size from 1 to the 60 rows, got 61": {"batch_size": 61},
    "expected a batch_size from 1 to the 60 rows, got 0": {"batch_size": 0},
    "expected at least one pass, got 0": {"passes": 0},
    "expected a start of 8 numbers, one a column of features, got shape": {"start": np.zeros(7)},
    r"expected a start inside L1Ball\(radius=3.0\), got one that is 5 outside": {"start": np.ones(8)},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_one_clear_error(message):
    with pytest.raises(ValueError, match=message):
        solve(logistic(), **BAD[message])


def test_bad_arrays_are_one_clear_error():
    features, targets = np.ones((4, 3)), np.ones(4)
    features[2, 1] = np.nan
    for matrix in (features, scipy.sparse.csr_array(features)):
        with pytest.raises(ValueError, match="expected finite features, got nan in row 2, column 1"):
            finite_sum(matrix, targets, losses.Squared(), sets.Simplex())
    with pytest.raises(ValueError, match="expected finite targets, got inf in row 3"):
        finite_sum(np.ones((4, 3)), np.array([1, 1, 1, np.inf]), losses.Squared(), sets.Simplex())
    with pytest.raises(ValueError, match=r"expected 4 targets, one a row of features, got shape \(3,\)"):
        finite_sum(np.ones((4, 3)), np.ones(3), losses.Squared(), sets.Simplex())
    with pytest.raises(ValueError, match=r"at least one row and column, got shape \(0, 3\)"):
        finite_sum(np.ones((0, 3)), np.ones(0), losses.Squared(), sets.Simplex())
    with pytest.raises(ValueError, match=r"expected a set of few vertices \(Simplex, L1Ball\), got Box: use Sag"):
        solve(least_squares(sets.Box(0.0, 1.0)), Pairwise())
