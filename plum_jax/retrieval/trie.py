"""SidTrie: the Semantic IDs that exist, as arrays on the device, so that a beam search never leaves them.

The prefixes of each length are numbered in lexicographic order, so the children of a prefix are one range of numbers
at the next level. A level costs two int32 per prefix; there is no table over pairs of codes (STATIC, arXiv 2602.22647,
keeps a dense head and a CSR tail; this is the CSR part alone, with the fan-out of each level as its static shape).
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class TrieState:
    """Where beams stand in a trie: prefixes of some length. A pytree; what the numbers mean is the trie's affair.

    Attributes:
      index: int32 `[B, m]`; after the last level the row of the SID among the sorted distinct SIDs.
      count: int32 `[B, m]`.
    """

    index: jax.Array
    count: jax.Array


@flax.struct.dataclass
class SidTrie:
    """Prefixes of a set of SIDs. A pytree: pass it to a jitted function as an argument.

    Attributes:
      codes: for each level l, int32 `[P_l]`: the last code of each prefix of l + 1 codes, in lexicographic order.
      first_child: for each level l, int32 `[P_{l-1} + 1]`: the prefixes that extend prefix p of level l - 1 are
        `first_child[l][p] .. first_child[l][p + 1] - 1`; level 0 has one parent, the empty prefix 0.
      codebook_sizes: W of each level.
      fan_out: the most children that one parent has, at each level.
    """

    codes: tuple[jax.Array, ...]
    first_child: tuple[jax.Array, ...]
    codebook_sizes: tuple[int, ...] = flax.struct.field(pytree_node=False)
    fan_out: tuple[int, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def from_codes(cls, codes: np.ndarray, codebook_sizes: tuple[int, ...]) -> SidTrie:
        """Builds the trie of `codes` [N, L] (any order, repeats allowed): all items of a table, or any subset.

        Raises:
          ValueError: no item, another number of levels than `codebook_sizes`, or a code outside its codebook.
        """
        codes = np.asarray(codes)
        _check_codes(codes, codebook_sizes)
        rows = codes[np.lexsort(codes.T[::-1])].astype(np.int32)
        starts = np.zeros(len(rows), dtype=bool)  # starts[r]: row r begins a new prefix of this length
        starts[0] = True
        parents = np.array([0])  # first row of each prefix of the level above
        level_codes, first_child, fan_out = [], [], []
        for level in range(rows.shape[1]):
            starts[1:] |= rows[1:, level] != rows[:-1, level]
            children = np.flatnonzero(starts)
            offsets = np.append(np.searchsorted(children, parents), len(children)).astype(np.int32)
            level_codes.append(jnp.asarray(rows[children, level]))
            first_child.append(jnp.asarray(offsets))
            fan_out.append(int(np.diff(offsets).max()))
            parents = children
        return cls(tuple(level_codes), tuple(first_child), tuple(int(w) for w in codebook_sizes), tuple(fan_out))

    @property
    def num_levels(self) -> int:
        return len(self.codes)

    @property
    def num_prefixes(self) -> tuple[int, ...]:
        """Distinct prefixes of 1, 2, ... L codes; the last is the number of distinct SIDs."""
        return tuple(len(codes) for codes in self.codes)

    def root(self, batch: int, sets: jax.Array | None = None) -> TrieState:
        """The empty prefix, `[B, 1]`, of set 0, or of the sets int32 `[B]` of a stacked trie."""
        if sets is not None:
            raise NotImplementedError("one set only, as yet")
        zeros = jnp.zeros((batch, 1), jnp.int32)
        return TrieState(zeros, zeros)

    def scores(
        self, level: int, state: TrieState, log_probs: jax.Array, excluded: jax.Array | None = None
    ) -> jax.Array:
        """Scores `[B, m, F]` of the continuations of prefixes `state` [B, m], -inf at places without one.

        Args:
          level: of the next code.
          state: where the beams stand.
          log_probs: `[B, m, W]`, of each next code, any float dtype: kept. A beam's own score may be added before or
            after.
          excluded: at the last level only, int32 `[B, X]`: rows of SIDs that this user must not get, -1 for none.

        F is `fan_out[level]`; a place means something only to `take`.
        """
        codes, prefixes, valid = self.children(level, state.index)
        if excluded is not None:
            valid &= (prefixes[..., None] != excluded[:, None, None, :]).all(axis=-1)
        return jnp.where(valid, jnp.take_along_axis(log_probs, codes, axis=2), -jnp.inf)

    def take(self, level: int, state: TrieState, parent: jax.Array, place: jax.Array) -> tuple[jax.Array, TrieState]:
        """The continuations `place` [B, k] (0..F-1) of beams `parent` [B, k]: codes int32 [B, k] and states [B, k].

        Places that `scores` gave -inf to yield any code and a state that is safe to go on with: the beam's score stays
        -inf.
        """
        index = jnp.take_along_axis(state.index, parent, axis=1)
        codes, prefixes, _ = self.children(level, index)
        code, prefix = (jnp.take_along_axis(x, place[..., None], axis=2)[..., 0] for x in (codes, prefixes))
        return code, TrieState(prefix, jnp.ones_like(prefix))

    def rows(self, state: TrieState) -> jax.Array:
        """int32 [B, k], after the last level: each SID's row in the table's `items_of_sid().sids`."""
        return state.index

    def children(self, level: int, prefixes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The continuations of `prefixes` [...] (numbers at `level` - 1; 0, the empty prefix, for level 0).

        Returns:
          codes, prefixes (numbers at `level`) and whether they are real, each `[..., F]` with F = `fan_out[level]`.
        """
        first = self.first_child[level][prefixes]
        count = self.first_child[level][prefixes + 1] - first
        place = jnp.arange(self.fan_out[level], dtype=jnp.int32)
        valid = place < count[..., None]
        numbers = jnp.where(valid, first[..., None] + place, 0)
        return self.codes[level][numbers], numbers, valid


def _check_codes(codes: np.ndarray, codebook_sizes: tuple[int, ...]) -> None:
    if codes.ndim != 2 or codes.shape[1] != len(codebook_sizes):
        raise ValueError(f"expected codes [N, {len(codebook_sizes)}] for {codebook_sizes=}, got shape {codes.shape}")
    if len(codes) == 0:
        raise ValueError("expected at least one item to search among, got an empty set: check the subset's filter")
    outside = np.argwhere((codes < 0) | (codes >= np.asarray(codebook_sizes)))
    if len(outside):
        item, level = outside[0]
        raise ValueError(
            f"row {item} has code {codes[item, level]} at level {level}, expected 0..{codebook_sizes[level] - 1}"
        )
