"""LEM: the large-embedding model that PLUM is compared with (§1.4 and Table 2): two towers over a table of items."""

from plum_jax.systems.lem.system import Lem

__all__ = ["Lem"]
