"""Small problems whose figures are known or computed by another program."""

import numpy as np

from plum_jax.frank_wolfe import losses, sets
from plum_jax.frank_wolfe.problem import FiniteSum, finite_sum


def logistic(radius: float = 3.0, rows: int = 60, columns: int = 8, seed: int = 0) -> FiniteSum:
    """Labels by a noisy hidden direction, in an l1 ball."""
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(rows, columns))
    scores = features @ draw.normal(size=columns) + draw.normal(size=rows)
    return finite_sum(features, (scores > 0).astype(float), losses.Logistic(), sets.L1Ball(radius))


def least_squares(domain: sets.ConstraintSet, rows: int = 60, columns: int = 8, seed: int = 0) -> FiniteSum:
    """Targets by a noisy hidden direction."""
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(rows, columns))
    targets = features @ draw.normal(size=columns) + 0.5 * draw.normal(size=rows)
    return finite_sum(features, targets, losses.Squared(), domain)
