"""LUM, a large user model (arXiv 2502.08309): what a user takes next under a condition; then asked, then used."""

from plum_jax.systems.lum.system import Lum

__all__ = ["Lum"]
