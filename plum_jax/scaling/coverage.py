"""Do 90% intervals hold the truth 9 times of 10? Studies simulated from a known law, each bootstrapped and looked up.

python -m plum_jax.scaling.coverage --studies 200 --draws 200 --seed 0
"""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np

from plum_jax.scaling import bootstrap, multi_start, parametric_law
from plum_jax.scaling.parametric_law import DELTA, ParametricFit

PLANTED = ParametricFit(
    E=1.82, A=480.0, B=2100.0, alpha=0.348, beta=0.366, objective=0.0, method="planted", rows=0, residual_sd=0.0
)
# Beside the planted law itself; its basin is wide.
STARTS = parametric_law.chinchilla_starts()[1113::2000]


@dataclasses.dataclass(frozen=True)
class Coverage:
    """How often intervals held the truth.

    Attributes:
      share: of the studies, for each of E, A, B, alpha, beta, a and "loss" (of the best size at 10 times the largest
        budget).
      width: median width of the interval of each.
      studies, draws, rows: how many.
      level: that was asked for.
      seed: of all draws.
    """

    share: dict[str, float]
    width: dict[str, float]
    studies: int
    draws: int
    rows: int
    level: float
    seed: int


def grid(budgets: np.ndarray, sizes: int, span: float, law: ParametricFit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N, D and budget [n] of `sizes` sizes from 1/span to span times the best one of each budget."""
    factor = np.geomspace(1.0 / span, span, sizes)
    N = np.concatenate([law.optimum(C)[0] * factor for C in budgets])
    C = np.repeat(budgets, sizes)
    return N, C / (6.0 * N), C


def measure(
    N: np.ndarray,
    D: np.ndarray,
    strata: np.ndarray | None = None,
    *,
    law: ParametricFit = PLANTED,
    noise: float = 0.005,
    studies: int = 200,
    draws: int = 200,
    seed: int = 0,
    level: float = 0.9,
    scheme: str = "weights",
    delta: float = DELTA,
) -> Coverage:
    """Simulates studies with normal noise of log loss, one run a cell, and looks at their percentile intervals.

    Args:
      N, D: [n], the cells.
      strata: [n] labels that the bootstrap keeps apart; None is one stratum.
      law: the truth.
      noise: standard deviation of log loss.
      studies, draws: how many, and bootstrap draws of each.
      seed: of noise and draws.
      level: of the intervals.
      scheme: of the bootstrap, see `bootstrap.draw_counts`.
      delta: Huber's threshold.
    """
    truth = parametric_law.log_loss(law.log_parameters, N, D)
    targets = truth + np.random.default_rng(seed).normal(0.0, noise, (studies, len(N)))
    counts = bootstrap.draw_counts(len(N), studies * draws, seed, scheme=scheme, strata=strata)
    best = multi_start.descend_many(
        parametric_law.chinchilla_design(N, D),
        np.repeat(targets, draws, axis=0),
        np.concatenate([STARTS, law.log_parameters[None]]),
        delta=delta,
        weights=counts,
    )
    held, widths = {}, {}
    largest = 10.0 * float((6.0 * N * D).max())
    all_draws = bootstrap.Bootstrap(best.parameters, best.objective, "huber", len(N), 0, seed)
    best_N, best_D = law.optimum(np.asarray(largest))
    looked_up = {name: (all_draws.values(name), getattr(law, name)) for name in ("E", "A", "B", "alpha", "beta")}
    looked_up["a"] = (all_draws.values("a"), law.exponent_a)
    looked_up["loss"] = (all_draws.loss(best_N, best_D), float(law.loss(best_N, best_D)))
    for name, (values, true) in looked_up.items():
        ends = np.percentile(values.reshape(studies, draws), [50 * (1 - level), 50 * (1 + level)], axis=1)
        held[name] = float(np.mean((ends[0] <= true) & (true <= ends[1])))
        widths[name] = float(np.median(ends[1] - ends[0]))
    return Coverage(held, widths, studies, draws, len(N), level, seed)


def main() -> None:
    """Prints the coverage of a 5 by 7 iso-FLOP grid over two decades."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", type=float, default=0.005, help="standard deviation of log loss")
    parser.add_argument("--delta", type=float, default=DELTA, help="Huber's threshold")
    parser.add_argument("--scheme", default="weights", help="weights or copies")
    parser.add_argument("--stratified", action="store_true", help="draws keep the number of runs of each budget")
    asked = parser.parse_args()
    N, D, C = grid(np.geomspace(1e18, 1e20, 5), 7, 4.0, PLANTED)
    found = measure(
        N,
        D,
        C if asked.stratified else None,
        noise=asked.noise,
        studies=asked.studies,
        draws=asked.draws,
        seed=asked.seed,
        scheme=asked.scheme,
        delta=asked.delta,
    )
    print(
        f"{found.rows} runs, {found.studies} studies of {found.draws} draws, seed {found.seed}; level {found.level:.0%}"
    )
    for name, share in found.share.items():
        print(f"{name:>6}  held {share:6.1%}  median width {found.width[name]:.4g}")


if __name__ == "__main__":
    main()
