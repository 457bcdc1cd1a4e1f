"""Loss laws of mixtures of experts, in activated and total parameters; dense runs are those where both are equal.

The joint law of Ludziejewski et al. 2025 (2502.05172), L = a r^d N^-(alpha + g log r) + b r^w D^-(beta + z log r) + c,
with N the activated parameters and r the ratio of total to activated parameters in place of their transformed number of
experts: the ratio is what a run's record has, and it is 1 for dense models. In logs every term is linear in its
parameters, so the multi-start of the dense law serves.

The default has one parameter more than the dense law, E + A N_act^-alpha r^-gamma + B D^-beta: what of the joint law a
small grid can tell (d = -gamma; no w, g, z).
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from plum_jax.scaling import multi_start, parametric_law
from plum_jax.scaling.multi_start import Descents
from plum_jax.scaling.parametric_law import DELTA

_NAMES = ("log_A", "log_B", "log_E", "alpha", "beta", "gamma")
_JOINT = ("omega", "alpha_ratio", "beta_ratio")
# Signs and exponents of the ratio in starts: of no use, and as good as parameters.
_GAMMAS = (0.0, 0.3)


@dataclasses.dataclass(frozen=True)
class MoeFit:
    """L = E + A N^-(alpha + alpha_ratio log r) r^-gamma + B D^-(beta + beta_ratio log r) r^-omega, r = N_total / N_act.

    Attributes:
      parameters: by name: log_A, log_B, log_E, alpha, beta, gamma; of the joint form omega, alpha_ratio, beta_ratio.
      objective: sum of Huber losses.
      rows: runs that were fitted.
      residual_sd: of log residuals, root of their squares over rows less parameters.
      descents: where all starts ended.
    """

    parameters: dict[str, float]
    objective: float
    rows: int
    residual_sd: float
    descents: Descents = dataclasses.field(repr=False, compare=False)

    def loss(self, activated: np.ndarray, total: np.ndarray, D: np.ndarray) -> np.ndarray:
        """The law at activated and total parameters and D tokens."""
        activated, total, D = np.broadcast_arrays(*(np.asarray(x, float) for x in (activated, total, D)))
        design = moe_design(activated.ravel(), total.ravel(), D.ravel(), joint=len(self.parameters) > len(_NAMES))
        terms = design @ np.array(list(self.parameters.values()))
        return np.exp(np.logaddexp.reduce(terms, axis=0)).reshape(activated.shape)


def moe_design(activated: np.ndarray, total: np.ndarray, D: np.ndarray, *, joint: bool) -> np.ndarray:
    """Terms [3, n, 6 or 9] of the law, see `log_sum_exp`."""
    log_N, log_D, log_ratio = np.log(activated), np.log(D), np.log(np.asarray(total, float) / activated)
    design = np.zeros((3, len(log_N), len(_NAMES) + (len(_JOINT) if joint else 0)))
    design[0, :, 0], design[0, :, 3], design[0, :, 5] = 1.0, -log_N, -log_ratio
    design[1, :, 1], design[1, :, 4] = 1.0, -log_D
    design[2, :, 2] = 1.0
    if joint:
        design[1, :, 6], design[0, :, 7], design[1, :, 8] = -log_ratio, -log_ratio * log_N, -log_ratio * log_D
    return design


def fit_moe(
    activated: np.ndarray,
    total: np.ndarray,
    D: np.ndarray,
    loss: np.ndarray,
    *,
    joint: bool = False,
    weights: np.ndarray | None = None,
    delta: float = DELTA,
    starts: np.ndarray | None = None,
) -> MoeFit:
    """Minimises the weighted sum of Huber losses of log residuals from all starts.

    Args:
      activated, total: [n] parameters; equal for dense runs.
      D, loss: [n].
      joint: whether D's term and both exponents depend on the ratio too (9 parameters; wants several ratios at several
        sizes and numbers of tokens).
      weights: [n], of each row's Huber loss.
      delta: Huber's threshold.
      starts: [S, 5] of the dense law; None is every third of `chinchilla_starts`. Each is tried with two gammas.

    Raises:
      ValueError: total below activated parameters, all ratios alike, or too few rows.
    """
    names = _NAMES + (_JOINT if joint else ())
    activated, total, D, loss = parametric_law.checked(
        least_rows=len(names) + 1, activated=activated, total=total, D=D, loss=loss
    )
    smaller = np.flatnonzero(total < activated)
    if len(smaller):
        row = smaller[0]
        raise ValueError(f"row {row} has {total[row]:g} parameters in total and activates {activated[row]:g} of them")
    if np.ptp(np.log(total / activated)) < 1e-9:
        raise ValueError("all runs have one ratio of total to activated parameters: fit the dense law, or add runs")
    dense = parametric_law.chinchilla_starts()[::3] if starts is None else np.atleast_2d(starts)
    tail = np.zeros(len(names) - len(_NAMES))
    rows = [np.concatenate([start, [gamma], tail]) for start, gamma in itertools.product(dense, _GAMMAS)]
    design = moe_design(activated, total, D, joint=joint)
    descents = multi_start.descend(design, np.log(loss), np.array(rows), delta=delta, weights=weights)
    best = descents.best()
    parameters = descents.parameters[best]
    residual = np.log(loss) - np.logaddexp.reduce(design @ parameters, axis=0)
    return MoeFit(
        parameters=dict(zip(names, parameters.tolist(), strict=True)),
        objective=float(descents.objective[best]),
        rows=len(loss),
        residual_sd=float(np.sqrt((residual**2).sum() / max(1, len(loss) - len(names)))),
        descents=descents,
    )
