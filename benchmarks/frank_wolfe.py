"""Speed of stochastic Frank-Wolfe beside copt, its authors' library, and how near its estimate of the gap comes.

    python benchmarks/frank_wolfe.py           five rounds of each side; 40 to 400 passes
    python benchmarks/frank_wolfe.py --quick   50 s: three rounds, a quarter of the passes

Needs copt and numba, which compiles copt's loops (`pip install -e .[bench]`). The paper's method with step 2 / (t + 2)
on logistic regression in an l1 ball: both sides make as many passes with the same batch size from the same start. copt
counts in 64 bits, ours in 32; both ends are evaluated by one NumPy function in 64. Compilation is not timed. Problems:
a dense synthetic one of the size of copt's own example, breast cancer as scikit-learn has it, and a sparse synthetic
one of RCV1's shape (20,242 rows, 47,236 columns, 73 entries a row).

The last line is JSON:

  vs_copt: seconds of copt over ours, median of the rounds; least of the problems; above 1 ours is faster.
  objective_minus_copt: our objective less copt's, over copt's, means over rounds, whose draws differ; greatest of the
    problems.
  gap_ratio_max: mean estimate of the gap over the mean true gap of the last ten passes, or its inverse, whichever is
    greater; greatest of the problems.
"""

from __future__ import annotations

import timing

VERSIONS = ("jax", "numpy", "copt", "numba")
SEED = 0


def main() -> None:
    """Measures problem after problem."""
    timing.run(__doc__, VERSIONS, measure, environment={"NUMBA_NUM_THREADS": str(timing.THREADS)})


def measure(quick: bool) -> dict:
    """The keys, and each problem's."""
    rows = {name: of_problem(*problem, quick) for name, problem in problems().items()}
    return {
        "problems": rows,
        "vs_copt": min(row["vs_copt"] for row in rows.values()),
        "objective_minus_copt": max(row["objective_minus_copt"] for row in rows.values()),
        "gap_ratio_max": max(row["gap_ratio"] for row in rows.values()),
    }


def problems():
    """Name -> features, targets, radius, batch size, passes."""
    import numpy as np
    from sklearn.datasets import load_breast_cancer

    draw = np.random.default_rng(SEED)
    dense = draw.normal(size=(500, 200))
    labels = (dense @ draw.normal(size=200) > 0).astype(float)
    cells, benign = load_breast_cancer(return_X_y=True)
    cells = (cells - cells.mean(axis=0)) / cells.std(axis=0)
    wide, topics = rcv1_shaped(draw)
    return {
        "synthetic 500 x 200, batch 50": (dense, labels, 1.0, 50, 400),
        "breast cancer 569 x 30, batch 1": (cells, benign.astype(float), 5.0, 1, 100),
        "sparse 20,242 x 47,236, batch 200": (wide, topics, 20.0, 200, 40),
    }


def rcv1_shaped(draw):
    """Sparse rows of length one, columns as frequent as words are, and labels of a sparse hidden direction."""
    import numpy as np
    import scipy.sparse

    count, width, entries = 20_242, 47_236, 73
    frequency = 1.0 / np.arange(1, width + 1)
    columns = draw.choice(width, size=(count, entries), p=frequency / frequency.sum())
    values = draw.exponential(size=(count, entries))
    row = np.repeat(np.arange(count), entries)
    matrix = scipy.sparse.csr_matrix((values.ravel(), (row, columns.ravel())), shape=(count, width))
    matrix = scipy.sparse.diags(1.0 / np.sqrt(matrix.multiply(matrix).sum(axis=1).A1)) @ matrix
    hidden = np.where(draw.random(width) < 0.05, draw.normal(size=width), 0.0)
    scores = matrix @ hidden
    return matrix.tocsr(), (scores + 0.1 * scores.std() * draw.normal(size=count) > 0).astype(float)


def of_problem(features, targets, radius, batch_size, passes, quick):
    """Seconds of both sides and where they ended."""
    import copt
    import numpy as np
    from copt import randomized

    from plum_jax.frank_wolfe import losses, sets
    from plum_jax.frank_wolfe.problem import finite_sum
    from plum_jax.frank_wolfe.solve import solve

    if quick:
        passes = max(1, passes // 4)
    problem = finite_sum(features, targets, losses.Logistic(), sets.L1Ball(radius))
    start = np.zeros(features.shape[1])
    start[0] = radius
    derivative = copt.loss.LogLoss(features, targets).partial_deriv
    oracle = copt.constraint.L1Ball(radius).lmo
    ends = {"ours": [], "copt": []}

    def ours():
        seed = len(ends["ours"])
        ends["ours"].append(solve(problem, batch_size=batch_size, passes=passes, seed=seed, start=start).point)

    def theirs():
        np.random.seed(len(ends["copt"]))  # noqa: NPY002 - copt draws by it  # noqa: NPY002: what copt draws by
        found = randomized.minimize_sfw(
            derivative, features, targets, start, oracle, batch_size=batch_size, max_iter=passes, tol=0.0, variant="SAG"
        )
        ends["copt"].append(found.x)

    seconds = timing.interleaved({"ours": ours, "copt": theirs}, 3 if quick else 5)
    objective = {side: np.mean([logistic(features, targets, end) for end in found]) for side, found in ends.items()}
    told = solve(problem, batch_size=batch_size, passes=passes, seed=SEED, start=start, exact_figures=True)
    estimated, true = (float(np.mean(gaps[-10:])) for gaps in (told.estimated_gap, told.gap))
    row = {
        "vs_copt": timing.median_ratio(seconds["copt"], seconds["ours"]),
        "objective_minus_copt": (objective["ours"] - objective["copt"]) / objective["copt"],
        "gap_ratio": max(estimated / true, true / estimated),
        "passes": passes,
        "seconds": min(seconds["ours"]),
    }
    print(f"{features.shape}, batch {batch_size}: {timing.rounded(row)}")
    return row


def logistic(features, targets, point):
    """The mean loss in 64 bits."""
    import numpy as np

    predictions = np.asarray(features @ np.asarray(point, np.float64)).ravel()
    return float(np.mean(np.logaddexp(0.0, predictions) - targets * predictions))


if __name__ == "__main__":
    main()
