"""Vectors of all items and of searches by a trained network, in blocks, and the first items of each search."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from plum_jax.feeds.batches import Batch
from plum_jax.systems.product_search.inputs import Queries, Searches
from plum_jax.systems.product_search.network import SearchNetwork

_ITEMS = 1024  # of one device call
_SEARCHES = 512


def item_vectors(network: SearchNetwork, params: Any) -> np.ndarray:
    """float32 [N, D]."""
    params, size, found = jax.device_put(params), len(network.items), []
    for start in tqdm(range(0, size, _ITEMS), desc="vectors of items", unit=" blocks", delay=3):
        ids = np.minimum(np.arange(start, start + _ITEMS), size - 1)  # one shape: another would compile again
        found.append(np.asarray(_items(network, params, ids))[: size - start])
    return np.concatenate(found)


def search_vectors(network: SearchNetwork, params: Any, found: Searches, queries: Queries) -> np.ndarray:
    """float32 [n, D]."""
    params, vectors = jax.device_put(params), []
    for start in range(0, len(found), _SEARCHES):
        rows = np.minimum(np.arange(start, start + _SEARCHES), len(found) - 1)
        vectors.append(np.asarray(_queries(network, params, found.columns(queries, rows)))[: len(found) - start])
    return np.concatenate(vectors)


@functools.partial(jax.jit, static_argnums=0)
def _items(network: SearchNetwork, params: Any, ids: jax.Array) -> Any:
    return network.apply({"params": params}, ids, method="of_items")


@functools.partial(jax.jit, static_argnums=0)
def _queries(network: SearchNetwork, params: Any, batch: Batch) -> Any:
    return network.apply({"params": params}, batch, method="of_queries")


def share_above(searches: np.ndarray, items: np.ndarray, threshold: float) -> np.ndarray:
    """float64 [n], the share of items float32 [N, D] that score `threshold` or more with each of [n, D]."""
    found = []
    for start in range(0, len(searches), _SEARCHES):
        found.append((searches[start : start + _SEARCHES] @ items.T >= threshold).mean(axis=1))
    return np.concatenate(found)
