"""Etsy's unified embeddings (arXiv 2306.04833): two towers for product search, and an index over one of them."""

from plum_jax.systems.product_search.system import ProductSearch

__all__ = ["ProductSearch"]
