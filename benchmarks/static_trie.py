"""STATIC (arXiv 2602.22647) as it was published, written after the paper and its repository: the rival of `SidTrie`.

Dense tables over the first two codes, compressed sparse rows below; a mask and the beams' step in JAX. What was left
out is the model and the log-softmax, which either side would do alike; a beam's history moves by a gather, not by a
product with a one-hot matrix, which is slower on CPU. The build is leaner than the published one: it goes level by
level.
"""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

PUBLISHED_TOKENS_PER_BEAM = 30


@flax.struct.dataclass
class StaticIndex:
    """States are numbered 1 + code for prefixes of one code, then V + 1 and on by length; 0 is the end.

    Attributes:
      start_mask: bool `[V]`.
      dense_mask, dense_states: bool and int32 `[V, V]`: pairs of first codes, and the states that they lead to.
      edges: int32 `[E + V, 2]`, (code, next state) by state; V rows of padding.
      edge_starts: int32 `[states + 2]`.
      fan_out: the most edges of a state of each length, static.
    """

    start_mask: jax.Array
    dense_mask: jax.Array
    dense_states: jax.Array
    edges: jax.Array
    edge_starts: jax.Array
    fan_out: tuple[int, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def build(cls, columns: tuple[np.ndarray, ...], size: int) -> StaticIndex:
        """Of sorted distinct SIDs by level (at least 3 levels), each code less than `size` (V)."""
        num_rows, num_levels = len(columns[0]), len(columns)
        opens = np.zeros(num_rows, bool)  # opens[r]: row r begins a prefix of the present length
        opens[0] = True
        state = np.zeros(num_rows, np.int32)  # of each row's prefix
        edges, counts, fan_out = [], [np.zeros(1, np.int32)], []
        next_state = size + 1
        for level, column in enumerate(columns):
            opens[1:] |= column[1:] != column[:-1]
            rows = np.flatnonzero(opens)
            codes = column[rows].astype(np.int32)
            if level == 0:
                start_mask = np.zeros(size, bool)
                start_mask[codes] = True
                fan_out.append(len(codes))
                state, first, states = column.astype(np.int32) + 1, 1, size
                continue
            of_parent = np.bincount(state[rows] - first, minlength=states).astype(np.int32)
            counts.append(of_parent)
            fan_out.append(int(of_parent.max()))
            first, states = next_state, len(rows)
            last = level == num_levels - 1
            numbers = np.zeros(len(rows), np.int32) if last else np.arange(first, first + states, dtype=np.int32)
            edges.append(np.stack([codes, numbers], axis=1))
            if not last:
                next_state += states
                state = np.cumsum(opens, dtype=np.int32) + np.int32(first - 1)
            if level == 1:
                dense_mask, dense_states = np.zeros((size, size), bool), np.zeros((size, size), np.int32)
                dense_mask[columns[0][rows], codes] = True
                dense_states[columns[0][rows], codes] = numbers
        padding = np.stack([np.full(size, size, np.int32), np.zeros(size, np.int32)], axis=1)
        ends = np.cumsum(np.concatenate(counts), dtype=np.int32)
        return cls(
            start_mask=jnp.asarray(start_mask),
            dense_mask=jnp.asarray(dense_mask),
            dense_states=jnp.asarray(dense_states),
            edges=jnp.asarray(np.concatenate([*edges, padding])),
            edge_starts=jnp.asarray(np.concatenate([[0], ends, [ends[-1] + size]]).astype(np.int32)),
            fan_out=tuple(fan_out),
        )

    @property
    def num_bytes(self) -> int:
        return sum(x.nbytes for x in jax.tree.leaves(self))


@functools.partial(jax.jit, static_argnames=("tokens_per_beam",))
def static_search(
    index: StaticIndex, log_probs: tuple[jax.Array, ...], tokens_per_beam: int = PUBLISHED_TOKENS_PER_BEAM
) -> tuple[jax.Array, jax.Array]:
    """The beams over `log_probs`, for each level `[B, M, V]` (of level 0 the first beam's count): codes, scores.

    At the dense level only `tokens_per_beam` codes of each beam are looked at, as published: exact from M on.

    Returns:
      codes int32 `[B, M, L]` and scores float32 `[B, M]`, best first.
    """
    batch, width, size = log_probs[0].shape
    scores, tokens = lax.top_k(jnp.where(index.start_mask, log_probs[0][:, 0], -jnp.inf), width)
    history, states = tokens[:, :, None], tokens + 1
    for level in range(1, len(log_probs)):
        if level == 1:
            parents = states - 1
            masked = jnp.where(index.dense_mask[parents], log_probs[1], -jnp.inf)
            candidates, codes = lax.top_k(masked, tokens_per_beam)
            next_states = index.dense_states[parents[:, :, None], codes]
        else:
            candidates, codes, next_states = _sparse_step(index, log_probs[level], states, index.fan_out[level])
        fan_out = candidates.shape[2]
        flat = (scores[:, :, None] + candidates).reshape(batch, width * fan_out)
        scores, place = lax.top_k(flat, width)
        tokens = jnp.take_along_axis(codes.reshape(batch, -1), place, axis=1)
        states = jnp.take_along_axis(next_states.reshape(batch, -1), place, axis=1)
        of_parent = jnp.take_along_axis(history, (place // fan_out)[:, :, None], axis=1)
        history = jnp.concatenate([of_parent, tokens[:, :, None]], axis=2)
    return history, scores


def _sparse_step(
    index: StaticIndex, log_probs: jax.Array, states: jax.Array, fan_out: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scores, codes and next states `[B, M, fan_out]` of the edges of `states` [B, M], -inf past a state's last."""
    starts = index.edge_starts[states]
    count = index.edge_starts[states + 1] - starts
    place = jnp.arange(fan_out)
    edges = jnp.take(index.edges, starts[:, :, None] + place, axis=0, mode="fill", fill_value=0)
    codes, next_states = edges[..., 0], edges[..., 1]
    candidates = jnp.take_along_axis(log_probs, jnp.minimum(codes, log_probs.shape[2] - 1), axis=2)
    return jnp.where(place < count[:, :, None], candidates, -jnp.inf), codes, next_states
