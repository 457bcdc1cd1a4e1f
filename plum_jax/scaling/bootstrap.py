"""Intervals of the loss law by the bootstrap, a run at a time, and prediction intervals with all their parts.

Checkpoints of one run share its seed, its data order and its learning rate: they are drawn together or not at all.
Every draw is fitted by a multi-start of its own (`multi_start.descend_many`).

By default a draw gives every run a random weight (exponential; Rubin 1981) in place of a number of copies: no corner of
the grid is ever missing, and 90% intervals of small grids hold the truth 90 to 95% of the time, where copies give 93
to 98% (`coverage`).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.scaling import likelihood, multi_start, parametric_law
from plum_jax.scaling.parametric_law import DELTA, FLOPS_PER_ND, ParametricFit

NAMES = ("E", "A", "B", "alpha", "beta", "a", "b")


@dataclasses.dataclass(frozen=True)
class PercentileInterval:
    """A percentile interval: `level` of the draws lie within."""

    low: float
    high: float
    level: float


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """Refits of resampled runs.

    Attributes:
      log_parameters: [R, 5], (log A, log B, log E, alpha, beta) of each draw that could be fitted.
      objective: [R].
      method: of the fits, "huber" or "likelihood".
      clusters: runs that were drawn from.
      failed: draws (of copies) in which too few different runs were left to fit; they are in no interval.
      seed: of the draws.
    """

    log_parameters: np.ndarray
    objective: np.ndarray
    method: str
    clusters: int
    failed: int
    seed: int

    def values(self, name: str) -> np.ndarray:
        """[R] of E, A, B, alpha, beta, or the exponents a (of N*) and b (of D*)."""
        log_A, log_B, log_E, alpha, beta = self.log_parameters.T
        columns = (
            np.exp(log_E),
            np.exp(log_A),
            np.exp(log_B),
            alpha,
            beta,
            beta / (alpha + beta),
            alpha / (alpha + beta),
        )
        if name not in NAMES:
            raise ValueError(f"no parameter {name!r}; there are {', '.join(NAMES)}")
        return columns[NAMES.index(name)]

    def interval(self, name: str, level: float = 0.9) -> PercentileInterval:
        """Percentile interval of one of `NAMES`."""
        return interval(self.values(name), level)

    def loss(self, N: np.ndarray, D: np.ndarray) -> np.ndarray:
        """[R, ...]: every draw's law at N parameters and D tokens."""
        N, D = np.asarray(N, float), np.asarray(D, float)
        shape = (-1, *[1] * np.broadcast(N, D).ndim, 5)
        return np.exp(parametric_law.log_loss(self.log_parameters.reshape(shape), N, D))

    def optimum(self, C: np.ndarray, flops_per_nd: float = FLOPS_PER_ND) -> tuple[np.ndarray, np.ndarray]:
        """(N*, D*), each [R, ...], at C FLOPs."""
        C = np.asarray(C, float)
        log_A, log_B, _, alpha, beta = (column.reshape(-1, *[1] * C.ndim) for column in self.log_parameters.T)
        log_balance = (np.log(alpha) + log_A - np.log(beta) - log_B) / (alpha + beta)
        log_product = np.log(C / flops_per_nd)
        share = beta / (alpha + beta)
        return np.exp(log_balance + share * log_product), np.exp((1.0 - share) * log_product - log_balance)


@dataclasses.dataclass(frozen=True)
class PredictionInterval:
    """Where the loss of one new run is expected, with what makes the interval wide; deviations are of log loss.

    Attributes:
      centre: the law's loss, in nats.
      low, high: of the interval that holds `level` of the draws.
      parameter_sd: from not knowing the law's parameters.
      residual_sd: what runs scatter about the law beyond their seeds (lack of fit).
      seed_sd: what another seed changes.
    """

    centre: float
    low: float
    high: float
    level: float
    parameter_sd: float
    residual_sd: float
    seed_sd: float


def interval(values: np.ndarray, level: float = 0.9) -> PercentileInterval:
    """Percentile interval of draws [R]."""
    low, high = np.percentile(values, [50.0 * (1.0 - level), 50.0 * (1.0 + level)])
    return PercentileInterval(float(low), float(high), level)


def draw_counts(
    rows: int,
    draws: int,
    seed: int,
    *,
    scheme: str = "weights",
    runs: np.ndarray | None = None,
    strata: np.ndarray | None = None,
    least_runs: int = 1,
) -> np.ndarray:
    """[draws, rows]: how often each row is drawn, or its weight; the same for all rows of a run (cluster).

    Args:
      rows: n.
      draws: R.
      seed: of the draws.
      scheme: "weights", exponential of mean 1 for each run; "copies", runs with replacement.
      runs: [n] labels; rows of one run are drawn together. None: every row is a run.
      strata: [n] labels, e.g. budgets: each keeps its number of runs. None: one stratum.
      least_runs: copies of fewer different runs of a stratum (or of seven tenths of them, where there are fewer) are
        drawn again: a law of more parameters would go through all its points.

    Raises:
      ValueError: a run with rows in two strata.
    """
    labels = np.arange(rows) if runs is None else _numbered(runs)
    stratum_of = np.zeros(rows, int) if strata is None else _numbered(strata)
    clusters = labels.max() + 1
    stratum = np.zeros(clusters, int)
    stratum[labels] = stratum_of
    torn = np.flatnonzero(stratum[labels] != stratum_of)
    if len(torn):
        raise ValueError(f"row {torn[0]} is in another stratum than other rows of its run; a run belongs to one")
    if scheme not in ("weights", "copies"):
        raise ValueError(f'scheme is "weights" or "copies", found {scheme!r}')
    draw = np.random.default_rng(seed)
    counts = np.zeros((draws, clusters))
    for name in range(stratum.max() + 1):
        members = np.flatnonzero(stratum == name)
        if scheme == "weights":
            weights = draw.exponential(size=(draws, len(members)))
            counts[:, members] = weights / weights.mean(1, keepdims=True)
        else:
            chance = np.full(len(members), 1.0 / len(members))
            copies = draw.multinomial(len(members), chance, draws)
            while len(poor := np.flatnonzero((copies > 0).sum(1) < min(least_runs, 0.7 * len(members)))):
                copies[poor] = draw.multinomial(len(members), chance, size=len(poor))
            counts[:, members] = copies
    return counts[:, labels]


def bootstrap(
    N: np.ndarray,
    D: np.ndarray,
    loss: np.ndarray,
    *,
    runs: np.ndarray | None = None,
    strata: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    draws: int = 1000,
    seed: int = 0,
    method: str = "huber",
    scheme: str = "weights",
    delta: float = DELTA,
    starts: np.ndarray | None = None,
) -> Bootstrap:
    """Resamples runs and fits the law to every draw, from all starts.

    Args:
      N, D, loss: [n].
      runs, strata: [n] labels, see `draw_counts`.
      weights: [n], of each row.
      draws: R.
      seed: of the draws.
      method: "huber" (`fit_parametric`) or "likelihood" (`fit_likelihood`, from the draw's own Huber fit).
      scheme: see `draw_counts`.
      delta: Huber's threshold in log loss.
      starts: [S, 5]; None is `chinchilla_starts`.
    """
    if method not in ("huber", "likelihood"):
        raise ValueError(f'method is "huber" or "likelihood", found {method!r}')
    N, D, loss = parametric_law.checked(N=N, D=D, loss=loss)
    counts = draw_counts(len(loss), draws, seed, scheme=scheme, runs=runs, strata=strata)
    enough = np.array([_can_be_fitted(N[row > 0], D[row > 0]) for row in counts])
    rows = counts[enough] * (1.0 if weights is None else np.asarray(weights, float))
    best = multi_start.descend_many(
        parametric_law.chinchilla_design(N, D),
        np.log(loss),
        parametric_law.chinchilla_starts() if starts is None else starts,
        delta=delta,
        weights=rows,
    )
    parameters, objective = best.parameters, best.objective
    if method == "likelihood":
        parameters, _, value = likelihood.maximise(N, D, loss, parameters, weights=rows)
        objective = -value
    return Bootstrap(
        log_parameters=parameters,
        objective=objective,
        method=method,
        clusters=len(loss) if runs is None else len(np.unique(np.asarray(runs))),
        failed=int((~enough).sum()),
        seed=seed,
    )


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Labels [n] as numbers from 0."""
    return np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1)


def _can_be_fitted(N: np.ndarray, D: np.ndarray) -> bool:
    """Whether the rows of a draw have three sizes, three numbers of tokens and six different pairs."""
    return len(np.unique(N)) >= 3 and len(np.unique(D)) >= 3 and len(np.unique(np.stack([N, D], 1), axis=0)) >= 6


def predict(
    fit: ParametricFit,
    draws: Bootstrap,
    N: float,
    D: float,
    *,
    seed_sd: float = 0.0,
    level: float = 0.9,
) -> PredictionInterval:
    """Interval for the loss of one new run of N parameters and D tokens.

    A run scatters about the law by the fit's residuals, of which the seed is one part and lack of fit the rest. The
    interval takes the law for true beyond the fitted range: it knows nothing of a form that changes there.

    Args:
      fit: of all runs; the centre.
      draws: its bootstrap.
      seed_sd: standard deviation of log loss between seeds, from replicates (`noise.replicate_noise`).
      level: 0.9 for 90%.
    """
    size, tokens = np.asarray(N, float), np.asarray(D, float)
    centre, logs = float(fit.loss(size, tokens)), np.log(draws.loss(size, tokens))
    total_sd = max(fit.residual_sd, seed_sd)
    residual_sd = float(np.sqrt(total_sd**2 - seed_sd**2))
    noise = np.random.default_rng([draws.seed, 1]).normal(0.0, 1.0, (50, len(logs)))
    ends = interval((logs + total_sd * noise).ravel(), level)
    return PredictionInterval(
        centre=centre,
        low=float(np.exp(ends.low)),
        high=float(np.exp(ends.high)),
        level=level,
        parameter_sd=float(logs.std()),
        residual_sd=residual_sd,
        seed_sd=seed_sd,
    )
