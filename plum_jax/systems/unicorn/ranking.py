"""Every item scored for each context, exactly, and the first ones kept, with seen items and without."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from plum_jax.evaluation.metrics import NOTHING, RankedItems
from plum_jax.systems.unicorn.network import UnicornNetwork

_CONTEXTS = 64  # of one device call
_ITEMS = 1024  # of one product of the layers


def best_items(
    network: UnicornNetwork, params: Any, contexts: Mapping[str, np.ndarray], seen: list[np.ndarray], k: int
) -> tuple[RankedItems, np.ndarray]:
    """The k items of the highest logits for each of B contexts, the lower index where they are equal.

    Args:
      network, params: trained.
      contexts: columns [B, ...] of `Inputs`.
      seen: B arrays of items that the second of the lists leaves out.
      k: length of a list; -1 fills it where fewer items are left.

    Returns:
      the lists, and float32 [B, k] logits of the first of them.
    """
    params, size = jax.device_put(params), len(seen)
    wanted, longest = min(k, len(network.items)), max(1, *map(len, seen)) if size else 1
    table = _table(network, params)
    found: list[Any] = []
    for start in tqdm(range(0, size, _CONTEXTS), desc="ranking all items", unit=" blocks", delay=3):
        stop = min(start + _CONTEXTS, size)
        rows = np.minimum(np.arange(start, start + _CONTEXTS), size - 1)  # one shape: another would compile again
        left_out = np.full((_CONTEXTS, longest), len(network.items), np.int32)  # N is no item: dropped
        for row in range(start, stop):
            left_out[row - start, : len(seen[row])] = seen[row]
        block = {name: values[rows] for name, values in contexts.items()}
        answer = jax.device_get(_best(network, params, table, block, left_out, wanted))
        found.append([part[: stop - start] for part in answer])
    items, unseen, unseen_values, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    unseen = np.where(np.isfinite(unseen_values), unseen, NOTHING)
    filled = [np.pad(part, ((0, 0), (0, k - wanted)), constant_values=NOTHING) for part in (items, unseen)]
    values = np.pad(values, ((0, 0), (0, k - wanted)), constant_values=-np.inf)
    return RankedItems(*(part.astype(np.int32) for part in filled)), values


def logits_of(
    network: UnicornNetwork, params: Any, contexts: Mapping[str, np.ndarray], targets: np.ndarray
) -> np.ndarray:
    """float32 [B, M], logits of some items int [B, M] for each context."""
    params, found = jax.device_put(params), []
    table = _table(network, params)
    for start in range(0, len(targets), _CONTEXTS):
        rows = np.minimum(np.arange(start, start + _CONTEXTS), len(targets) - 1)
        block = {name: values[rows] for name, values in contexts.items()}
        scored = np.asarray(_of_some(network, params, table, block, targets[rows].astype(np.int32)))
        found.append(scored[: len(targets) - start])
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=0)
def _table(network: UnicornNetwork, params: Any) -> Any:
    return network.apply({"params": params}, method="table")


@functools.partial(jax.jit, static_argnums=(0, 5))
def _best(
    network: UnicornNetwork, params: Any, table: jax.Array, batch: Mapping[str, jax.Array], seen: jax.Array, k: int
) -> tuple[jax.Array, ...]:
    def one(row: Any) -> jax.Array:
        # A context and some items at a time: what is computed of their pairs stays in the cache.
        alone = {name: values[None] for name, values in row.items()}
        context = network.apply({"params": params}, alone, table, method="context")
        targets: Any = network.apply({"params": params}, alone, table, method="all_targets")
        size = targets.shape[1]
        blocks = jnp.pad(targets[0], ((0, -size % _ITEMS), (0, 0))).reshape(-1, 1, _ITEMS, targets.shape[-1])
        found: Any = jax.lax.map(lambda b: network.apply({"params": params}, context, b, method="logits"), blocks)
        return found.reshape(-1)[:size]

    scores = jax.lax.map(one, dict(batch))
    values, items = jax.lax.top_k(scores, k)
    others = scores.at[jnp.arange(len(scores))[:, None], seen].set(-jnp.inf, mode="drop")
    unseen_values, unseen = jax.lax.top_k(others, k)
    return items, unseen, unseen_values, values


@functools.partial(jax.jit, static_argnums=0)
def _of_some(
    network: UnicornNetwork, params: Any, table: jax.Array, batch: Mapping[str, jax.Array], targets: jax.Array
) -> Any:
    return network.apply({"params": params}, batch, table, targets, method="of_some")
