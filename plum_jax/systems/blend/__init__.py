"""Several systems' lists in one ranking, by weights that are calibrated in an l1 ball."""

from plum_jax.systems.blend.system import Blend

__all__ = ["Blend"]
