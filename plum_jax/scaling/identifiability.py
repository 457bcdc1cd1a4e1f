"""Gates between a fit and a number: what the runs do not say is reported as not identified, with the reason.

Published laws have been the start vector of their optimiser, one of several basins, or a point on a flat profile
(Hoffmann's E and B, the loss(C) fits of Porian et al., R_D* of Muennighoff et al.); each gate here stops one of these.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.scaling import likelihood, multi_start, parametric_law
from plum_jax.scaling.likelihood import Profile
from plum_jax.scaling.parametric_law import DELTA, ParametricFit

_INDEX = {"A": 0, "B": 1, "E": 2, "alpha": 3, "beta": 4}
_NEEDED = {"a": ("alpha", "beta"), "b": ("alpha", "beta")}  # exponents of N* and D* need both
_SAME_AS_START = 1e-3  # largest relative change of a parameter
_STILL_TO_GAIN = 1e-6  # of the objective, relative
_VANISHED = 1e-3  # share of a term in all predictions
_STEEPEST = 3.0
_WORST_CONDITION = 1e12  # of J'J with columns of one length: beyond it the solution of a step is rounding
_BASINS_TOLERANCE = 1e-2  # basins whose objective is within this of the lowest are told
_PROFILE_POINTS = 16  # on either side of the fit
_PINNED = 1e4  # weight of the row that fixes a parameter, in all other rows' weight


@dataclasses.dataclass(frozen=True)
class NotIdentified:
    """What stands in place of a number."""

    parameter: str
    why: str

    def __str__(self) -> str:
        return f"{self.parameter} not identified: {self.why}"


@dataclasses.dataclass(frozen=True)
class Identifiability:
    """What was found on a fit.

    Attributes:
      fit: that was examined.
      still_to_gain: share of the objective that a descent from the fit's parameters still took off.
      is_start: whether the parameters are those of a start.
      share_at_best: of the starts, ended at the lowest objective; None where the fit has no starts.
      basins: [c, 5], ends within 1% of the lowest objective that differ from it; log parameters.
      condition_number: of J'J by log parameters, columns scaled to one length.
      vanished: terms that have no share in any prediction.
      profiles: by parameter.
    """

    fit: ParametricFit
    still_to_gain: float
    is_start: bool
    share_at_best: float | None
    basins: np.ndarray
    condition_number: float
    vanished: tuple[str, ...]
    profiles: dict[str, Profile]

    @property
    def reasons(self) -> tuple[str, ...]:
        """What speaks against the fit as a whole; empty where nothing does."""
        found = []
        if self.still_to_gain > _STILL_TO_GAIN:
            where = "at its start" if self.is_start else "early"
            found.append(
                f"the optimiser stopped {where}: a descent from there lowers the objective by {self.still_to_gain:.1%}"
            )
        found += [f"the term of {name} has vanished from all predictions" for name in self.vanished]
        for name in ("alpha", "beta"):
            slope = getattr(self.fit, name)
            if not 0.0 < slope < _STEEPEST:
                found.append(f"{name} = {slope:.3g} is outside (0, {_STEEPEST:g})")
        if self.condition_number > _WORST_CONDITION:
            found.append(f"the parameters are one direction to {self.condition_number:.0e}")
        return tuple(found)

    def value(self, name: str) -> float | NotIdentified:
        """E, A, B, alpha, beta, a or b; or why the runs do not say it."""
        if self.reasons:
            return NotIdentified(name, "; ".join(self.reasons))
        for needed in _NEEDED.get(name, (name,)):
            profile = self.profiles.get(needed)
            if profile is not None and profile.flat:
                side = "below" if not profile.bounded_below else "above"
                return NotIdentified(
                    name,
                    f"the profile of {needed} is flat {side}: {profile.low:.4g} to {profile.high:.4g} fit as well at "
                    f"{profile.level:.0%}, and the range ends there",
                )
        return {"a": self.fit.exponent_a, "b": self.fit.exponent_b}.get(name) or float(getattr(self.fit, name))


def examine(
    N: np.ndarray,
    D: np.ndarray,
    loss: np.ndarray,
    fit: ParametricFit,
    *,
    starts: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    delta: float = DELTA,
    profiles: tuple[str, ...] = ("E", "alpha", "beta"),
    level: float = 0.9,
) -> Identifiability:
    """Puts a fit, from here or from anywhere, through the gates.

    Args:
      N, D, loss: [n], what was fitted.
      fit: by Huber's loss with `delta` and `weights`.
      starts: [S, 5], where its optimiser started; None is `chinchilla_starts`.
      profiles: parameters whose profile is wanted, of E, A, B, alpha, beta; each costs some descents.
      level: of the profiles' intervals.
    """
    N, D, loss = parametric_law.checked(N=N, D=D, loss=loss)
    starts = parametric_law.chinchilla_starts() if starts is None else np.atleast_2d(starts)
    theta = fit.log_parameters
    if not np.all(np.isfinite(theta)):
        theta = np.nan_to_num(theta, neginf=np.log(loss.min()) - 30.0)  # a coefficient of 0
    design, target = parametric_law.chinchilla_design(N, D), np.log(loss)
    further = multi_start.descend_from(design, target, theta[None], delta=delta, weights=weights)
    objective = _objective(theta, N, D, loss, weights, delta)
    shares = _shares(theta, design)
    jacobian = np.einsum("kn,knp->np", shares, design)
    lengths = np.linalg.norm(jacobian, axis=0)
    moved = np.abs(starts - theta) / np.maximum(np.abs(starts), 1e-2)
    return Identifiability(
        fit=fit,
        still_to_gain=float(max(0.0, 1.0 - further.objective[0] / objective)),
        is_start=bool(np.any(np.all(moved < _SAME_AS_START, axis=1))),
        share_at_best=None if fit.descents is None else fit.descents.share_at_best(),
        basins=_other_basins(fit),
        condition_number=float(np.linalg.cond(jacobian / np.maximum(lengths, 1e-300)) ** 2),
        vanished=tuple(name for name, share in zip(("A", "B", "E"), shares.max(1), strict=True) if share < _VANISHED),
        profiles={name: profile(name, N, D, loss, fit, weights=weights, delta=delta, level=level) for name in profiles},
    )


def profile(
    name: str,
    N: np.ndarray,
    D: np.ndarray,
    loss: np.ndarray,
    fit: ParametricFit,
    *,
    weights: np.ndarray | None = None,
    delta: float = DELTA,
    level: float = 0.9,
) -> Profile:
    """Profile of E, A, B, alpha or beta: from a fiftieth of the fit to 8 times, E at most to the lowest loss.

    A parameter is fixed by one more row whose prediction is the parameter itself and whose weight outweighs all
    others. Every value is descended to from the fit and its other basins, then again from its neighbours' ends.
    """
    best = float(getattr(fit, name))
    highest = max(1.02 * best, 1.02 * float(np.min(loss)) if name == "E" else 8.0 * best)
    below, above = np.geomspace(best / 50.0, best, _PROFILE_POINTS), np.geomspace(best, highest, _PROFILE_POINTS)
    values = np.concatenate([below, above[1:]])
    lowest = _lowest_at(name, values, N, D, loss, fit, weights, delta)
    rows = len(loss) if weights is None else float(np.sum(weights))
    coarse = likelihood.judged_profile(name, values, lowest, rows, delta, level)
    # Where the interval is narrow beside the range, its ends want points of their own.
    near = best + np.outer([coarse.low - best, coarse.high - best], np.linspace(0.4, 2.0, 9)).ravel()
    near = near[(near > values[0]) & (near < values[-1])]
    values = np.concatenate([values, near])
    lowest = np.concatenate([lowest, _lowest_at(name, near, N, D, loss, fit, weights, delta)])
    return likelihood.judged_profile(name, values, lowest, rows, delta, level)


def _lowest_at(
    name: str,
    values: np.ndarray,
    N: np.ndarray,
    D: np.ndarray,
    loss: np.ndarray,
    fit: ParametricFit,
    weights: np.ndarray | None,
    delta: float,
) -> np.ndarray:
    """Least objective [G] over all other parameters at each of the values [G]."""
    index = _INDEX[name]
    fixed = np.log(values) if index < 3 else values
    pinned = np.zeros((3, 1, 5))
    pinned[:, 0, index] = 1.0
    design = np.concatenate([parametric_law.chinchilla_design(N, D), pinned], axis=1)
    weight = np.ones(len(loss)) if weights is None else np.asarray(weights, float)
    weight = np.append(weight, _PINNED * weight.sum())
    targets = np.concatenate([np.tile(np.log(loss), (len(values), 1)), fixed[:, None] + np.log(3.0)], axis=1)
    middle = np.array([np.log(N).mean(), np.log(D).mean()])

    def at(parameters: np.ndarray) -> np.ndarray:
        """The parameters [G, 5] with the fixed one in its place, and its term as large as before."""
        parameters = parameters.copy()
        if index >= 3:
            parameters[:, index - 3] += (fixed - parameters[:, index]) * middle[index - 3]
        parameters[:, index] = fixed
        return parameters

    first = [fit.log_parameters, *_other_basins(fit)[:3]]
    starts = [at(np.tile(start, (len(values), 1))) for start in first]
    lowest, ends = np.full(len(values), np.inf), starts[0]
    for _ in range(2):
        for start in starts:
            found = multi_start.descend_from(design, targets, start, delta=delta, weights=weight)
            better = found.objective < lowest
            lowest, ends = np.where(better, found.objective, lowest), np.where(better[:, None], found.parameters, ends)
        # Neighbours' ends lead around places where the fit's own parameters do not.
        starts = [at(np.roll(ends, shift, axis=0)) for shift in (1, -1)]
    return lowest


def _other_basins(fit: ParametricFit) -> np.ndarray:
    """[c, 5]: converged ends of other objectives near the lowest."""
    if fit.descents is None:
        return np.zeros((0, 5))
    ends = fit.descents
    limit = ends.objective[ends.best()] * (1.0 + _BASINS_TOLERANCE)
    near = dataclasses.replace(ends, objective=np.where(ends.converged, ends.objective, np.inf))
    distinct = multi_start.lowest_distinct(near, 100)
    values = np.array([ends.objective[np.all(ends.parameters == row, axis=1)].min() for row in distinct])
    return distinct[1:][values[1:] <= limit]


def _objective(
    theta: np.ndarray, N: np.ndarray, D: np.ndarray, loss: np.ndarray, weights: np.ndarray | None, delta: float
) -> float:
    """Sum of Huber losses at log parameters."""
    residual = parametric_law.log_loss(theta, N, D) - np.log(loss)
    clipped = np.clip(residual, -delta, delta)
    return float(((1.0 if weights is None else weights) * clipped * (residual - 0.5 * clipped)).sum())


def _shares(theta: np.ndarray, design: np.ndarray) -> np.ndarray:
    """[3, n]: what part of each prediction a term is."""
    terms = np.exp(design @ theta)
    return terms / terms.sum(0)
