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
