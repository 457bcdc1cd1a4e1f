"""The paper's experiments: objective, gap and its estimate, pass by pass, of six methods on four problems.

    python experiments/frank_wolfe/run.py              all problems, seeds 0, 1 and 2
    python experiments/frank_wolfe/run.py digits 3     one problem, one more seed

Each run is a row of results.jsonl beside this file, with the figures after 1, 2, 4, ... passes, counted in 64 bits.
Data sets are those that ship with scikit-learn, and a sparse synthetic one of RCV1's shape.
"""

from __future__ import annotations

import pathlib
import sys
import time

import jax
import numpy as np
import scipy.sparse
from sklearn import datasets

jax.config.update("jax_enable_x64", True)

from plum_jax.frank_wolfe import losses, sets  # noqa: E402 - after the width of floats is set
from plum_jax.frank_wolfe.methods import Momentum, Pairwise, Sag, Substitute  # noqa: E402
from plum_jax.frank_wolfe.problem import FiniteSum, finite_sum  # noqa: E402
from plum_jax.frank_wolfe.solve import solve  # noqa: E402
from plum_jax.training.run_record import run_record, write_rows  # noqa: E402

RESULTS = pathlib.Path(__file__).parent / "results.jsonl"
METHODS = {
    "sfw": Sag(),
    "sfw_saga": Sag(saga=True),
    "momentum": Momentum(),
    "substitute": Substitute(),
    "pairwise": Pairwise(),
    "deterministic": Sag(),
}
OF_ALL_ROWS = ("pairwise", "deterministic")  # a step a pass


def problems() -> dict[str, tuple[FiniteSum, int]]:
    """Name -> problem, passes."""
    cells, benign = datasets.load_breast_cancer(return_X_y=True)
    pixels, digit = datasets.load_digits(return_X_y=True)
    patients, progress = datasets.load_diabetes(return_X_y=True)
    wide, topics = rcv1_shaped(np.random.default_rng(0))
    logistic, squared = losses.Logistic(), losses.Squared()
    return {
        "breast_cancer": (finite_sum(standardised(cells), benign, logistic, sets.L1Ball(5.0)), 1024),
        "digits": (finite_sum(standardised(pixels), digit % 2, logistic, sets.L1Ball(10.0)), 1024),
        "diabetes": (finite_sum(standardised(patients), standardised(progress), squared, sets.L1Ball(0.8)), 1024),
        "rcv1_shaped": (finite_sum(wide, topics, logistic, sets.L1Ball(20.0)), 128),
    }


def standardised(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and deviation 1; constant ones are 0."""
    deviation = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)


def rcv1_shaped(draw: np.random.Generator) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """20,242 sparse rows of length one, columns as frequent as words are, labels of a sparse hidden direction."""
    count, width, entries = 20_242, 47_236, 73
    frequency = 1.0 / np.arange(1, width + 1)
    columns = draw.choice(width, size=(count, entries), p=frequency / frequency.sum())
    row = np.repeat(np.arange(count), entries)
    values = draw.exponential(size=(count, entries)).ravel()
    matrix = scipy.sparse.csr_array((values, (row, columns.ravel())), shape=(count, width))
    length = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    matrix = scipy.sparse.diags_array(1.0 / length) @ matrix
    hidden = np.where(draw.random(width) < 0.05, draw.normal(size=width), 0.0)
    scores = matrix @ hidden
    noisy = scores + 0.1 * scores.std() * draw.normal(size=count)
    return scipy.sparse.csr_array(matrix), (noisy > 0).astype(float)


def run(name: str, problem: FiniteSum, passes: int, method: str, seed: int) -> None:
    """One row."""
    count = problem.features.shape[0]
    batch_size = count if method in OF_ALL_ROWS else max(1, count // 100)
    start = time.perf_counter()
    found = solve(problem, METHODS[method], batch_size=batch_size, passes=passes, seed=seed, exact_figures=True)
    seconds = time.perf_counter() - start
    assert found.objective is not None and found.gap is not None
    places = 2 ** np.arange(int(np.log2(passes)) + 1) - 1
    last = slice(-max(1, passes // 8), None)
    row = {
        "objective": float(found.objective[-1]),
        "least_objective": float(found.objective.min()),
        "greatest_bound": float((found.objective - found.gap).max()),
        "gap": float(found.gap[-1]),
        "estimate_over_gap": float(found.estimated_gap[last].mean() / found.gap[last].mean()),
        "violation": float(problem.domain.violation(found.point)),
    }
    curves = {"passes": (places + 1).tolist()}
    for figure in ("objective", "gap", "estimated_gap"):
        curves[figure] = [float(f"{value:.6g}") for value in getattr(found, figure)[places]]
    facts = {"data": name, "method": method, "seed": seed, "batch_size": batch_size, "curves": curves}
    told = run_record(f"{name}/{method}", row, **facts, wall_seconds=round(seconds, 2))
    write_rows(RESULTS, [told])
    print(
        f"{name:14s}{method:14s} seed {seed}  objective {row['objective']:.6f}  gap {row['gap']:.2e}  {seconds:.1f} s"
    )


def main() -> None:
    """Problems and seeds of the command line, else all."""
    names, seeds = sys.argv[1:2], [int(seed) for seed in sys.argv[2:]] or [0, 1, 2]
    every = problems()
    for name in names or every:
        for method in METHODS:
            for seed in seeds if method not in OF_ALL_ROWS else seeds[:1]:
                run(name, *every[name], method, seed)


if __name__ == "__main__":
    main()
