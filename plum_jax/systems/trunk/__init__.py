"""A behaviour trunk: one model of sequences of events, used by many applications (Netflix's foundation model)."""

from plum_jax.systems.trunk.system import Trunk

__all__ = ["Trunk"]
