"""SidTrie: the Semantic IDs that exist, as arrays on the device, so that a beam search never leaves them.

The distinct SIDs are sorted. A prefix is then a range of rows, and what continues it are the codes of the next level in
these rows: nothing is stored for a prefix of few rows but the rows' codes, two bytes each. Only a prefix of more than
`window` rows is a node, with a list of its continuations, or with a bitmap where they are dense. Catalogues branch at
the first levels, so nodes are few. STATIC (arXiv 2602.22647) stores 8 bytes for each prefix of every length, 4 for
each state, and a table over pairs of codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from plum_jax import artifact
from plum_jax.retrieval import trie_build
from plum_jax.retrieval.sorted_sids import SidSetError, SortedSids

DEFAULT_WINDOW = 32
_MOST_PREFIXES = 1 << 13  # counts above are not told apart: no beam is as wide, and programs depend on them


@flax.struct.dataclass
class TrieState:
    """Where beams stand in a trie: prefixes of some length. A pytree.

    Attributes:
      index: int32 `[B, m]`: the prefix's first row, or its number among the nodes of its length.
      count: int32 `[B, m]`: how many rows have the prefix; 0: it is a node.
    """

    index: jax.Array
    count: jax.Array


@flax.struct.dataclass
class TrieLevel:
    """What continues the prefixes of one length: T rows, G nodes, E continuations of nodes.

    Attributes:
      codes: uint16 or uint32 `[T + E + F]`: each row's code, then those of the nodes' lists, then F zeros.
      first: int32 `[G + 1]`: a node's continuations are `first[g] .. first[g + 1] - 1`, places in `codes` (with
        bitmaps: among the continuations).
      child_index, child_count: `[E + F]`, the `TrieState` that each continuation leads to.
      bitmap: uint32 `[G, W / 32]`, which codes continue a node; `[0, 0]` where nodes have lists.
      num_rows: T: 0 where every prefix is a node.
      fan_out: F: W with bitmaps, else the most places that a prefix has.
      window: the most rows of a prefix that is no node.
    """

    codes: jax.Array
    first: jax.Array
    child_index: jax.Array
    child_count: jax.Array
    bitmap: jax.Array
    num_rows: int = flax.struct.field(pytree_node=False)
    fan_out: int = flax.struct.field(pytree_node=False)
    window: int = flax.struct.field(pytree_node=False)

    @property
    def dense(self) -> bool:
        return self.bitmap.shape[0] > 0

    @property
    def has_nodes(self) -> bool:
        return self.first.shape[0] > 0

    def places(self, state: TrieState) -> tuple[jax.Array, jax.Array]:
        """Of prefixes [...] of a level without bitmaps: their first place in `codes` and how many they have."""
        if not self.has_nodes:
            return state.index, state.count
        is_node = state.count == 0
        node = jnp.where(is_node, state.index, 0)
        first = _at(self.first, node)
        index = jnp.where(is_node, first, state.index)
        return index, jnp.where(is_node, _at(self.first, node + 1) - first, state.count)


@flax.struct.dataclass
class SidTrie:
    """A set of SIDs, or several in one, each with its own root. A pytree: pass it to a jitted function as an argument.

    Attributes:
      levels: one for each code of a SID.
      root_index, root_count: int32 `[sets]`, the `TrieState` of each set's empty prefix.
      labels: int32 `[rows]` or more, the number in the whole table of each row of a subset; None: they are the same.
      digest: uint32 [2], the fingerprint.
      codebook_sizes: W of each level.
      num_prefixes: the most distinct prefixes of 1, 2, ... L codes in one set (8192 for more): no more beams can live.
    """

    levels: tuple[TrieLevel, ...]
    root_index: jax.Array
    root_count: jax.Array
    labels: jax.Array | None
    digest: jax.Array
    codebook_sizes: tuple[int, ...] = flax.struct.field(pytree_node=False)
    num_prefixes: tuple[int, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def from_codes(cls, codes: np.ndarray, codebook_sizes: Sequence[int], items: np.ndarray | None = None) -> SidTrie:
        """The trie of codes [N, L], any order, repeats allowed; or of a subset: a mask [N] or item numbers.

        Raises:
          SidSetError: (a ValueError) an empty set, a code outside its codebook, an item that there is not.
        """
        return cls.build(SortedSids.from_codes(codes, codebook_sizes), [items])

    @classmethod
    def build(
        cls, sids: SortedSids, sets: Sequence[np.ndarray | None] = (None,), window: int = DEFAULT_WINDOW
    ) -> SidTrie:
        """One trie of several sets of items, each a mask, item numbers, or None for all; `root` takes their numbers.

        Args:
          sids: of the whole table; sorted once, it serves every subset.
          sets: a subset costs time and memory by its own size.
          window: rows that are scanned for a prefix that has no node. Less: more nodes; more: more candidates a beam.

        Raises:
          SidSetError: no set, an empty one, or a window outside 1..255.
        """
        if not sets or not 1 <= window <= 255:
            raise SidSetError(f"expected at least one set and a window of 1..255, got {len(sets)} sets, {window=}")
        if len(sets) == 1 and sets[0] is None:
            rows, starts, columns, digest = None, np.zeros(1, np.int64), sids.columns, sids.fingerprint
        else:
            parts = [np.arange(len(sids), dtype=np.int32) if s is None else sids.rows_of(s) for s in sets]
            rows = np.concatenate(parts)
            starts = np.cumsum([0, *map(len, parts[:-1])])
            columns = tuple(column[rows] for column in sids.columns)
            each = [sids.fingerprint_of(part) for part in parts]
            digest = each[0] if len(each) == 1 else artifact.fingerprint(*each)
        built = trie_build.build(columns, starts, sids.codebook_sizes, window)
        return cls(
            levels=tuple(_on_device(level) for level in built.levels),
            root_index=jnp.asarray(built.root_index),
            root_count=jnp.asarray(built.root_count),
            labels=None if rows is None else jnp.asarray(trie_build.with_room(rows)),
            digest=jnp.asarray(np.array([int(digest[:8], 16), int(digest[8:], 16)], np.uint32)),
            codebook_sizes=sids.codebook_sizes,
            num_prefixes=tuple(min(count, _MOST_PREFIXES) for count in built.num_prefixes),
        )

    @property
    def num_levels(self) -> int:
        return len(self.levels)

    @property
    def num_sets(self) -> int:
        return self.root_index.shape[0]

    @property
    def fan_out(self) -> tuple[int, ...]:
        """F of each level: places that `scores` gives for each beam."""
        return tuple(level.fan_out for level in self.levels)

    @property
    def fingerprint(self) -> str:
        """Hash of the sets of SIDs alone: no order of items plays a part."""
        high, low = np.asarray(self.digest).tolist()
        return f"{high:08x}{low:08x}"

    @property
    def num_bytes(self) -> int:
        return sum(x.nbytes for x in jax.tree.leaves(self))

    def root(self, batch: int, sets: jax.Array | None = None) -> TrieState:
        """The empty prefix, `[B, 1]`, of set 0, or of each user's set, int32 `[B]`."""
        sets = jnp.zeros(batch, jnp.int32) if sets is None else sets
        return TrieState(_at(self.root_index, sets)[:, None], _at(self.root_count, sets)[:, None])

    def scores(self, level: int, state: TrieState, log_probs: jax.Array) -> jax.Array:
        """Scores `[B, m, F]` of the continuations of prefixes `state` [B, m], -inf at places without one.

        Args:
          level: of the next code.
          state: where the beams stand.
          log_probs: `[B, m, W]`, of each next code, in any floating dtype, which is kept.

        F is `fan_out[level]`; a place means something only to `take`.
        """
        here = self.levels[level]
        if here.dense:
            return jnp.where(_bits(_at(here.bitmap, state.index), log_probs.shape[-1]), log_probs, -jnp.inf)
        first, count = here.places(state)
        place = jnp.arange(here.fan_out, dtype=jnp.int32)
        codes = _at(here.codes, first[..., None] + place).astype(jnp.int32)
        valid = place < count[..., None]
        if not self._is_last(level) and here.fan_out > 1:
            # Rows that share the code are one continuation: its first row stands for it.
            valid &= jnp.concatenate([jnp.ones_like(valid[..., :1]), codes[..., 1:] != codes[..., :-1]], axis=-1)
        return jnp.where(valid, _along_last(log_probs, codes), -jnp.inf)

    def take(self, level: int, state: TrieState, parent: jax.Array, place: jax.Array) -> tuple[jax.Array, TrieState]:
        """The continuations `place` [B, k] (0..F-1) of beams `parent` [B, k]: codes int32 [B, k] and states [B, k].

        Places that `scores` gave -inf to yield any code and a state that is safe to go on with: the beam's score stays
        -inf.
        """
        here = self.levels[level]
        state = TrieState(*(jnp.take_along_axis(x, parent, axis=1) for x in (state.index, state.count)))
        if here.dense:
            entry = _at(here.first, state.index) + _rank(_at(here.bitmap, state.index), place)
            return place, self._child(here, entry)
        first, count = here.places(state)
        code = _at(here.codes, first + place).astype(jnp.int32)
        if here.num_rows == 0:
            return code, self._child(here, first + place)
        below = 1 if self._is_last(level) else max(self.levels[level + 1].window, 1)
        child = TrieState(
            jnp.minimum(state.index + place, here.num_rows - 1),
            self._rows_with(here, code, first + place, count - place, min(below, here.window)),
        )
        if not here.has_nodes:
            return code, child
        is_node, of_node = state.count == 0, self._child(here, first + place - here.num_rows)
        return code, TrieState(
            jnp.where(is_node, of_node.index, child.index), jnp.where(is_node, of_node.count, child.count)
        )

    def rows(self, state: TrieState) -> jax.Array:
        """int32 [B, k], after the last level: each SID's row in the table's `items_of_sid().sids`."""
        return state.index if self.labels is None else _at(self.labels, state.index)

    def children(self, level: int, state: TrieState) -> tuple[jax.Array, TrieState, jax.Array]:
        """All continuations of `state` [B, m]: codes, states and whether they are real, each `[B, m, F]`.

        A search needs only `scores`, and `take` for the few that it keeps.
        """
        batch, width = state.index.shape
        fan_out = self.levels[level].fan_out
        zeros = jnp.zeros((batch, width, self.codebook_sizes[level]))
        valid = self.scores(level, state, zeros) == 0
        parent, place = jnp.divmod(jnp.arange(width * fan_out, dtype=jnp.int32), fan_out)
        codes, states = self.take(
            level, state, jnp.broadcast_to(parent, (batch, parent.size)), jnp.broadcast_to(place, (batch, place.size))
        )
        codes, states = jax.tree.map(lambda x: x.reshape(batch, width, fan_out), (codes, states))
        return codes, states, valid

    def _is_last(self, level: int) -> bool:
        return level == len(self.levels) - 1

    @staticmethod
    def _child(level: TrieLevel, entry: jax.Array) -> TrieState:
        entry = jnp.clip(entry, 0, level.child_index.shape[0] - 1)
        return TrieState(_at(level.child_index, entry), _at(level.child_count, entry).astype(jnp.int32))

    @staticmethod
    def _rows_with(level: TrieLevel, code: jax.Array, place: jax.Array, left: jax.Array, most: int) -> jax.Array:
        """How many rows from `place` on, of those `left` to the parent, share the code: 1 to `most`."""
        if most == 1:
            return jnp.ones_like(code)
        ahead = jnp.arange(most, dtype=jnp.int32)
        same = _at(level.codes, place[..., None] + ahead) == code[..., None].astype(level.codes.dtype)
        return jnp.maximum((same & (ahead < left[..., None])).sum(axis=-1, dtype=jnp.int32), 1)


def _on_device(level: trie_build.LevelArrays) -> TrieLevel:
    arrays = {
        name: jnp.asarray(getattr(level, name)) for name in ("codes", "first", "child_index", "child_count", "bitmap")
    }
    return TrieLevel(**arrays, num_rows=level.num_rows, fan_out=level.fan_out, window=level.window)


def _at(array: jax.Array, index: jax.Array) -> jax.Array:
    """`array[index]` without a bound check of our own: XLA holds an index inside the array anyway."""
    return array.at[index].get(mode="promise_in_bounds")


def _along_last(values: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values, index, axis=-1, mode="promise_in_bounds")


def _bits(words: jax.Array, size: int) -> jax.Array:
    """bool `[..., size]` of uint32 words `[..., ceil(size / 32)]`, lowest bit first."""
    bits = (words[..., None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
    return bits.reshape(*words.shape[:-1], -1)[..., :size] != 0


def _rank(words: jax.Array, code: jax.Array) -> jax.Array:
    """int32: how many bits below `code` [...] are set in words `[..., ceil(W / 32)]`."""
    word, bit = code // 32, (code % 32).astype(jnp.uint32)
    number = jnp.arange(words.shape[-1], dtype=jnp.int32)
    below = jnp.where(number < word[..., None], ~jnp.uint32(0), 0)
    part = jnp.where(number == word[..., None], (jnp.uint32(1) << bit[..., None]) - 1, below)
    return jnp.bitwise_count(words & part).sum(axis=-1, dtype=jnp.int32)
