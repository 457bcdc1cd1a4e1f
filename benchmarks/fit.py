"""Speed of fitting the loss law from 4,500 starts beside SciPy's L-BFGS-B from the same starts, and of the bootstrap.

    python benchmarks/fit.py           SciPy from all starts, 1,000 bootstrap draws
    python benchmarks/fit.py --quick   50 s: SciPy from every 6th start, its time multiplied; 200 draws, multiplied

The 240 points of Hoffmann et al. as Besiroglu et al. 2024 read them (`PLUM_TEST_DATA`/scaling; where there are none,
as many points simulated from the published law). Huber's loss of log residuals, delta .001, summed. SciPy has an
objective with analytic gradient in NumPy, ftol 1e-15, gtol 1e-12, and one of the two threads that ours has: arrays of
240 numbers are too short for more. Both ends are evaluated by the NumPy objective. Compilation is not timed.

The last line is JSON:

  fit_vs_scipy: seconds of SciPy over ours, median of the rounds; above 1 ours is faster.
  objective_minus_scipy: our lowest objective less SciPy's, over SciPy's; below 1e-12 it is rounding and shown as 0.
  bootstrap_seconds: for 1,000 draws of the runs, each with its own multi-start.
  bootstrap_excess: largest relative excess of a draw's objective over a fit of that draw alone from all 4,500 starts.
"""

from __future__ import annotations

import os
import pathlib
import statistics
import time

import timing

VERSIONS = ("jax", "numpy", "scipy")
DELTA = 1e-3
PUBLISHED = (6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083)  # log A, log B, log E, alpha, beta
SEED = 0


def main() -> None:
    """Measures fit, then bootstrap."""
    # The arrays of SciPy's side are short: a pool of threads would only slow it down.
    timing.run(__doc__, VERSIONS, measure, environment={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})


def measure(quick: bool) -> dict:
    """The keys of both."""
    points, N, D, loss = chinchilla_points()
    print(f"{len(N)} points: {points}")
    return {"points": points, **measure_fit(N, D, loss, quick), **measure_bootstrap(N, D, loss, quick)}


def chinchilla_points():
    """What they are, N, D, loss: the published points where they are at hand, else simulated ones."""
    import numpy as np
    import polars as pl

    file = pathlib.Path(os.environ.get("PLUM_TEST_DATA", "")) / "scaling" / "chinchilla_epoch_svg.csv"
    if file.exists():
        table = pl.read_csv(file).sort("loss")[:-5]
        N, C, loss = (table[name].to_numpy() for name in ("Model Size", "Training FLOP", "loss"))
        return "published", N, C / (6.0 * N), loss
    draw = np.random.default_rng(SEED)
    N = np.exp(draw.uniform(np.log(4e7), np.log(1.6e10), 240))
    D = np.exp(draw.uniform(np.log(6e18), np.log(3e21), 240)) / (6.0 * N)
    a, b, e, alpha, beta = PUBLISHED
    noise = draw.laplace(0.0, 0.004, 240)
    return "simulated", N, D, (np.exp(e) + np.exp(a) * N**-alpha + np.exp(b) * D**-beta) * np.exp(noise)


def numpy_objective(N, D, loss):
    """The sum of Huber losses and its gradient at (log A, log B, log E, alpha, beta)."""
    import numpy as np

    log_N, log_D, log_L = np.log(N), np.log(D), np.log(loss)

    def objective(theta):
        a, b, e, alpha, beta = theta
        first, second = a - alpha * log_N, b - beta * log_D
        largest = np.maximum(np.maximum(first, second), e)
        first, second, third = np.exp(first - largest), np.exp(second - largest), np.exp(e - largest)
        total = first + second + third
        residual = largest + np.log(total) - log_L
        slope = np.clip(residual, -DELTA, DELTA)
        share = slope / total
        first, second = share * first, share * second
        gradient = (first.sum(), second.sum(), (share * third).sum(), -(first @ log_N), -(second @ log_D))
        return (slope * (residual - 0.5 * slope)).sum(), np.array(gradient)

    return objective


def measure_fit(N, D, loss, quick: bool) -> dict[str, object]:
    """Rounds of our fit around one of SciPy's, which takes long enough to be its own median."""
    import numpy as np
    from scipy import optimize

    from plum_jax.scaling import parametric_law

    starts = parametric_law.chinchilla_starts()
    objective = numpy_objective(N, D, loss)
    options = {"ftol": 1e-15, "gtol": 1e-12, "maxiter": 15_000, "maxfun": 15_000}
    part = np.random.default_rng(SEED).permutation(len(starts))[: len(starts) // 6 if quick else len(starts)]

    fit = parametric_law.fit_parametric(N, D, loss, delta=DELTA)  # compiles
    ours, scipys, ends = [], [], []
    for piece in np.array_split(part, 5):
        began = time.perf_counter()
        fit = parametric_law.fit_parametric(N, D, loss, delta=DELTA)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        ends += [
            optimize.minimize(objective, starts[index], jac=True, method="L-BFGS-B", options=options) for index in piece
        ]
        scipys.append((time.perf_counter() - began) * len(starts) / len(piece))
    lowest = min(ends, key=lambda end: end.fun)
    reached = np.array([end.fun for end in ends]) <= lowest.fun * (1 + 1e-6)
    difference = objective(fit.log_parameters)[0] / lowest.fun - 1.0
    print(
        f"4,500 starts: ours {statistics.median(ours):.2f} s, {fit.descents.share_at_best():.0%} of them at the best; "
        f"SciPy {statistics.median(scipys):.1f} s from {len(part)} starts, {reached.mean():.0%}"
    )
    print(f"objective {objective(fit.log_parameters)[0]:.13e}, SciPy's {lowest.fun:.13e}: difference {difference:.1e}")
    print(f"E {fit.E:.4f} A {fit.A:.2f} B {fit.B:.2f} alpha {fit.alpha:.5f} beta {fit.beta:.5f}")
    return {
        "fit_vs_scipy": timing.median_ratio(scipys, ours),
        "objective_minus_scipy": 0.0 if abs(difference) < 1e-12 else difference,
        "fit_seconds": statistics.median(ours),
        "scipy_seconds": statistics.median(scipys),
        "scipy_starts": len(part),
        "share_at_best": fit.descents.share_at_best(),
        "scipy_share_at_best": float(reached.mean()),
    }


def measure_bootstrap(N, D, loss, quick: bool) -> dict[str, object]:
    """Draws of the runs with replacement, and the check of a few against fits from all starts."""
    import numpy as np

    from plum_jax.scaling import multi_start, parametric_law

    design, starts = parametric_law.chinchilla_design(N, D), parametric_law.chinchilla_starts()
    draws = 200 if quick else 1_000
    counts = np.random.default_rng(SEED).multinomial(len(N), np.full(len(N), 1 / len(N)), draws).astype(float)
    multi_start.descend_many(design, np.log(loss), starts, delta=DELTA, weights=counts[:2])  # compiles
    began = time.perf_counter()
    best = multi_start.descend_many(design, np.log(loss), starts, delta=DELTA, weights=counts)
    seconds = (time.perf_counter() - began) * 1_000 / draws
    alone = [
        multi_start.descend(design, np.log(loss), starts, delta=DELTA, weights=row).objective.min()
        for row in counts[: 5 if quick else 50]
    ]
    excess = float(np.max(best.objective[: len(alone)] / alone - 1.0))
    print(f"1,000 bootstrap draws: {seconds:.0f} s ({draws} measured)")
    print(f"excess over fits from 4,500 starts each, {len(alone)} draws: {excess:.1e}")
    return {
        "bootstrap_seconds": seconds,
        "bootstrap_draws": draws,
        "bootstrap_excess": excess,
        "bootstrap_checked": len(alone),
    }


if __name__ == "__main__":
    main()
