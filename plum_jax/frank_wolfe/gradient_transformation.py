"""Frank-Wolfe in Optax: parameters that stay in a convex set, for any loss, by the set's oracle alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plum_jax.frank_wolfe.sets import ConstraintSet
from plum_jax.frank_wolfe.step_sizes import averaging, open_loop


class FrankWolfeState(NamedTuple):
    """Attributes:
    step: updates made.
    average: of the gradients, as the parameters are; None without averaging.
    gap: of the last gradient (or average), <g, w - s> summed over the arrays, where the update began.
    """

    step: jax.Array
    average: Any
    gap: jax.Array


def frank_wolfe(domain: ConstraintSet, average: bool = False) -> optax.GradientTransformation:
    """w <- w + 2 / (t + 2) (s - w), with the oracle's s for the gradient; each array of parameters lies in `domain`.

    The first step goes all the way to a vertex, so parameters are in the set from then on, wherever they began, and an
    average of them (EMA) is too. It is a whole optimizer: no learning rate, no clipping and no decay belong beside it.

    Args:
      domain: of each array by itself.
      average: the oracle gets d <- (1 - rho) d + rho g, rho = 4 / (t + 8)^(2/3) (Mokhtari et al., arXiv 1804.09554,
        whose step is 2 / (t + 8)): for gradients of minibatches, with which the plain method does not converge.

    Raises (from `update`):
      ValueError: no parameters were given.
    """

    def init(params: Any) -> FrankWolfeState:
        zeros = jax.tree.map(jnp.zeros_like, params) if average else None
        return FrankWolfeState(jnp.int32(0), zeros, jnp.float32(jnp.inf))

    def update(gradients: Any, state: FrankWolfeState, params: Any = None) -> tuple[Any, FrankWolfeState]:
        if params is None:
            raise ValueError("frank_wolfe: expected parameters beside gradients: update(gradients, state, params)")
        kept = None
        if average:
            rho = averaging(state.step)
            gradients = kept = jax.tree.map(lambda d, g: (1.0 - rho) * d + rho * g, state.average, gradients)
        directions = jax.tree.map(lambda g, w: domain.vertex(g) - w, gradients, params)
        slopes = jax.tree.map(lambda g, d: -jnp.vdot(g, d).astype(jnp.float32), gradients, directions)
        gap = sum(jax.tree.leaves(slopes), jnp.float32(0))
        size = open_loop(state.step)
        return jax.tree.map(lambda d: size * d, directions), FrankWolfeState(state.step + 1, kept, gap)

    return optax.GradientTransformation(init, update)
