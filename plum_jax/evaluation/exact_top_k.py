"""Exact retrieval by a product: the first k of all items for each user's vector, in blocks of users."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.metrics import NOTHING, RankedItems


def exact_top_k(
    users: np.ndarray,
    items: np.ndarray,
    evaluation: EvaluationSet,
    k: int,
    block: int = 256,
    added: np.ndarray | None = None,
) -> tuple[RankedItems, np.ndarray]:
    """The items with the greatest products, seen ones kept and removed; the lower index where scores are equal.

    Args:
      users: float32 [U, D], in the order of the evaluation set.
      items: float32 [N, D].
      evaluation: whose histories are the seen items.
      k: length of a list; -1 fills it where fewer items are left.
      block: users of one product, so that [block, N] scores exist at a time.
      added: float32 [events of all histories], to the scores of their items; None: nothing.

    Returns:
      the lists, and float32 [U, k] scores of the unseen ones.
    """
    wanted = min(k, len(items))
    table = jnp.asarray(items)
    kept, unseen, scores = [], [], []
    longest = int(np.diff(evaluation.history_offsets).max(initial=0))
    for start in range(0, len(users), block):
        stop = min(start + block, len(users))
        # All blocks have one shape: another would compile again.
        vectors = np.zeros((block, users.shape[1]), np.float32)
        vectors[: stop - start] = users[start:stop]
        seen = np.full((block, max(longest, 1)), len(items), np.int32)  # N is no item: dropped
        more = np.zeros(seen.shape if added is not None else (block, 0), np.float32)
        for row in range(start, stop):
            history, offsets = evaluation.history(row), evaluation.history_offsets[row : row + 2]
            seen[row - start, : len(history)] = history
            if added is not None:
                more[row - start, : len(history)] = added[slice(*offsets)]
        first, others, values = jax.device_get(_top(vectors, table, seen, more, wanted))
        kept.append(first[: stop - start])
        unseen.append(np.where(np.isfinite(values), others, NOTHING)[: stop - start])
        scores.append(values[: stop - start])
    lists = [_filled(np.concatenate(parts).astype(np.int32), k, NOTHING) for parts in (kept, unseen)]
    return RankedItems(*lists), _filled(np.concatenate(scores), k, -np.inf)


@functools.partial(jax.jit, static_argnums=4)
def _top(
    users: jax.Array, items: jax.Array, seen: jax.Array, added: jax.Array, k: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    scores = jnp.einsum("UD,ND->UN", users, items, preferred_element_type=jnp.float32)
    rows = jnp.arange(len(users))[:, None]
    if added.shape[1]:
        scores = scores.at[rows, seen].add(added, mode="drop")
    values, others = jax.lax.top_k(scores.at[rows, seen].set(-jnp.inf, mode="drop"), k)
    return jax.lax.top_k(scores, k)[1], others, values


def _filled(lists: np.ndarray, k: int, value: float) -> np.ndarray:
    return np.pad(lists, ((0, 0), (0, k - lists.shape[1])), constant_values=value)
