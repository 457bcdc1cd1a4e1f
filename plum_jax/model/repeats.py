"""What it is worth that an item was already in the history: a learned number for each age of its last occurrence.

A product of two vectors can hardly say "not again" of two hundred items at once, yet in most logs of films and reviews
nobody takes one twice, and in logs of music or groceries nearly everybody does (RepeatNet, arXiv 1812.02646, has a mode
of its own for it). A score gets the number of its item's age; what it is, training says.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.model.masks import PackedCausal

AGES = 8  # 0 events ago (the last), 1, 2 to 3, 4 to 7, ..., 64 to 127 less one, all before
SCALE = 16.0  # Adam moves a lone number by no more than the learning rate a step


def age_bucket(events_ago: jax.Array) -> jax.Array:
    """int32 in [0, AGES), of how many events ago (int, 0: the last) an item occurred."""
    # Not a logarithm, which some processors round down at powers of two.
    powers = 2 ** jnp.arange(1, AGES, dtype=jnp.int32)
    return jnp.searchsorted(powers, events_ago + 1, side="right").astype(jnp.int32)


def last_occurrences(items: jax.Array, segment_ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which positions hold an item's last occurrence, seen from each position, and how old it is.

    Args:
      items: int32 `[B, T]`.
      segment_ids: int32 `[B, T]` of packed histories, 0 at padding.

    Returns:
      bool `[B, T, S]`: the item at s has its last occurrence at s among the events of t's history up to t, t itself
      included; and the bucket of its age, int32 `[1, T, S]`.
    """
    length = items.shape[1]
    places = jnp.arange(length, dtype=jnp.int32)
    ago = places[:, None] - places[None, :]
    until = PackedCausal(segment_ids).dense() & (segment_ids[:, :, None] > 0)  # [B, T, S]
    again = until & (items[:, :, None] == items[:, None, :]) & (ago > 0)
    next_place = jnp.min(jnp.where(again, places[:, None], length), axis=1)  # [B, S], of the same item
    last = until & (next_place[:, None, :] > places[:, None])
    return last, age_bucket(jnp.maximum(ago, 0))[None]


def repeat_scores(worth: np.ndarray, items: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """What each event of some histories adds to its item's score; 0 where the item occurs again.

    Args:
      worth: float [AGES].
      items: int [sum of lengths], all histories one after another, oldest first.
      offsets: int [U + 1] of the histories.

    Returns:
      float32 [sum of lengths].
    """
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    ago = offsets[1:][user] - 1 - np.arange(len(items))
    pair = user * (int(items.max(initial=0)) + 1) + items
    first_from_behind = np.unique(pair[::-1], return_index=True)[1]
    found = np.zeros(len(items), np.float32)
    last = len(items) - 1 - first_from_behind
    found[last] = np.asarray(worth, np.float32)[np.asarray(age_bucket(jnp.asarray(ago[last])))]
    return found
