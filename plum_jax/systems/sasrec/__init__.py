"""SASRec: self-attention over a user's items, the next item by a product with the table of items."""

from plum_jax.systems.sasrec.system import SasRec

__all__ = ["SasRec"]
