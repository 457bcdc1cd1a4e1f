"""The loss law L(N, D) = E + A N^-alpha + B D^-beta, by Huber's loss of log residuals.

Two estimators that are both called "the Chinchilla fit" and give different headlines (B 2144 and 2085 on the same 240
points): `fit_parametric` is Hoffmann et al. 2022 (2203.15556), approach 3; `likelihood.fit_likelihood` is Besiroglu et
al. 2024 (2404.10102). Both start from Hoffmann's grid of 4,500 and descend every start.

N in parameters, D in tokens, C in FLOPs, L in nats (or any positive loss): arrays [n], one row a run.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from plum_jax.scaling import multi_start
from plum_jax.scaling.multi_start import Descents

FLOPS_PER_ND = 6.0
DELTA = 1e-3


@dataclasses.dataclass(frozen=True)
class ParametricFit:
    """L = E + A N^-alpha + B D^-beta, with how it was found.

    Attributes:
      objective: what was minimised: the sum of Huber losses, or minus the log-likelihood.
      method: "huber", "likelihood" or "variable_projection".
      rows: runs that were fitted.
      residual_sd: of log residuals, root of their squares over rows less parameters: not robust, as a new run may be an
        outlier too.
      scale: sigma of the Huber density; None where it was not fitted.
      descents: where all starts ended; None where the method has none.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    objective: float
    method: str
    rows: int
    residual_sd: float
    scale: float | None = None
    descents: Descents | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def log_parameters(self) -> np.ndarray:
        """(log A, log B, log E, alpha, beta), the order of Hoffmann's approach 3."""
        with np.errstate(divide="ignore"):
            return np.array([np.log(self.A), np.log(self.B), np.log(self.E), self.alpha, self.beta])

    @property
    def exponent_a(self) -> float:
        """N* grows as C^a."""
        return self.beta / (self.alpha + self.beta)

    @property
    def exponent_b(self) -> float:
        """D* grows as C^b."""
        return self.alpha / (self.alpha + self.beta)

    def loss(self, N: np.ndarray, D: np.ndarray) -> np.ndarray:
        """The law at N parameters and D tokens."""
        return np.exp(log_loss(self.log_parameters, N, D))

    def optimum(self, C: np.ndarray, flops_per_nd: float = FLOPS_PER_ND) -> tuple[np.ndarray, np.ndarray]:
        """(N*, D*) of least loss where C = flops_per_nd N D."""
        product = np.asarray(C, float) / flops_per_nd
        balance = (self.alpha * self.A / (self.beta * self.B)) ** (1.0 / (self.alpha + self.beta))
        return balance * product**self.exponent_a, product**self.exponent_b / balance


def chinchilla_starts() -> np.ndarray:
    """Hoffmann's 4,500 starts as (log A, log B, log E, alpha, beta)."""
    large, error, slope = np.arange(0.0, 26.0, 5.0), np.arange(-1.0, 1.1, 0.5), np.arange(0.0, 2.1, 0.5)
    return np.array(list(itertools.product(large, large, error, slope, slope)))


def chinchilla_design(N: np.ndarray, D: np.ndarray) -> np.ndarray:
    """Terms [3, n, 5] of the law, see `log_sum_exp`."""
    N, D = np.asarray(N, float), np.asarray(D, float)
    design = np.zeros((3, len(N), 5))
    design[0, :, 0], design[0, :, 3] = 1.0, -np.log(N)
    design[1, :, 1], design[1, :, 4] = 1.0, -np.log(D)
    design[2, :, 2] = 1.0
    return design


def log_loss(log_parameters: np.ndarray, N: np.ndarray, D: np.ndarray) -> np.ndarray:
    """Log of the law; `log_parameters` [..., 5] broadcast against N and D [...]."""
    a, b, e, alpha, beta = np.moveaxis(np.asarray(log_parameters, float), -1, 0)
    return np.logaddexp(np.logaddexp(a - alpha * np.log(N), b - beta * np.log(D)), e)


def fit_parametric(
    N: np.ndarray,
    D: np.ndarray,
    loss: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    delta: float = DELTA,
    starts: np.ndarray | None = None,
) -> ParametricFit:
    """Minimises the weighted sum of Huber losses of log residuals from all starts; the lowest end is the fit.

    Args:
      N, D, loss: [n].
      weights: [n], of each row's Huber loss; None is 1 each.
      delta: Huber's threshold in log loss; infinity is least squares.
      starts: [S, 5] as (log A, log B, log E, alpha, beta); None is `chinchilla_starts`.

    Raises:
      ValueError: values that are missing or not positive, fewer than 6 rows, or one N or D for all.
    """
    N, D, loss = checked(N=N, D=D, loss=loss)
    starts = chinchilla_starts() if starts is None else starts
    descents = multi_start.descend(chinchilla_design(N, D), np.log(loss), starts, delta=delta, weights=weights)
    best = descents.best()
    return parametric_fit(
        descents.parameters[best],
        N,
        D,
        loss,
        objective=float(descents.objective[best]),
        method="huber",
        descents=descents,
    )


def parametric_fit(
    log_parameters: np.ndarray,
    N: np.ndarray,
    D: np.ndarray,
    loss: np.ndarray,
    *,
    objective: float,
    method: str,
    scale: float | None = None,
    descents: Descents | None = None,
) -> ParametricFit:
    """A fit with its residuals from (log A, log B, log E, alpha, beta)."""
    residual = np.log(loss) - log_loss(log_parameters, N, D)
    a, b, e = np.exp(log_parameters[:3])
    return ParametricFit(
        E=float(e),
        A=float(a),
        B=float(b),
        alpha=float(log_parameters[3]),
        beta=float(log_parameters[4]),
        objective=objective,
        method=method,
        rows=len(loss),
        residual_sd=float(np.sqrt((residual**2).sum() / max(1, len(loss) - len(log_parameters)))),
        scale=scale,
        descents=descents,
    )


def checked(*, least_rows: int = 6, **columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """The columns as float64 arrays of one length; raises with column and row where a value is no positive number."""
    arrays = {name: np.asarray(values, float) for name, values in columns.items()}
    lengths = {name: array.shape for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or any(array.ndim != 1 for array in arrays.values()):
        raise ValueError(f"expected columns of one length, one row a run; found shapes {lengths}")
    for name, array in arrays.items():
        wrong = np.flatnonzero(~(np.isfinite(array) & (array > 0)))
        if len(wrong):
            raise ValueError(
                f"{name} of row {wrong[0]} is {array[wrong[0]]} ({len(wrong)} such rows); a law is fitted to positive "
                "numbers: take runs that did not finish out of the fit"
            )
        if len(array) < least_rows:
            raise ValueError(
                f"{len(array)} rows; the law has {least_rows - 1} parameters and wants {least_rows} rows or more"
            )
    return tuple(arrays.values())
