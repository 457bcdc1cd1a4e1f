"""Queries scored against the items of a batch: what losses of two towers of search read."""

from __future__ import annotations

from typing import NamedTuple

import jax


class ScoredPool(NamedTuple):
    """Scores of B queries: of the item that each is to find, and of a pool of P items that all share.

    Attributes:
      own: float32 [B], of the query and its own item.
      scores: float32 [B, P], of the query and the pool.
      negative: bool [B, P], which of the pool are negatives of the query.
      uniform: bool [P], which of the pool were drawn uniformly; the others are the batch's own items.
      log_count: float32 [P], log of how often the item is expected in a pool.
      hard_weight: float32 [B], 0..1, the share that hard negatives have in the loss at this step.
    """

    own: jax.Array
    scores: jax.Array
    negative: jax.Array
    uniform: jax.Array
    log_count: jax.Array
    hard_weight: jax.Array
