"""Completion of the matrix of users and items under a bound of its nuclear norm, by Frank-Wolfe on factors."""

from plum_jax.systems.matrix_completion.system import MatrixCompletion

__all__ = ["MatrixCompletion"]
