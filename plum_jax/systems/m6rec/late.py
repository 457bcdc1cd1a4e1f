"""Late interaction: what lies below the joining layer is computed once a segment, and kept."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from plum_jax.systems.m6rec.network import M6Network, against, applied
from plum_jax.systems.m6rec.rows import NOTHING, TextRows
from plum_jax.systems.m6rec.serving import by_blocks

_ROWS = 64  # segments of a device call
Key = tuple[int, tuple[int, ...]]  # side and tokens


@dataclasses.dataclass(eq=False)
class KeptSegments:
    """Scores of rows whose segments are looked up; a segment is the same wherever it stands on its side.

    Attributes:
      network, params: with classes, and layers that see segments alone.
      known: states float32 [tokens, D] of each segment that was met. It grows with the segments: a service bounds it.
    """

    network: M6Network
    params: Any
    known: dict[Key, np.ndarray] = dataclasses.field(default_factory=dict)

    def scores(self, rows: TextRows, block: int) -> np.ndarray:
        """float32 [n] logits, in blocks of one shape: those of `serving.whole`."""

        def of_block(some: TextRows) -> jax.Array:
            columns = {"side": some.side, "segment": some.segment}
            return above(self.network, self.params, self.states(some), columns)

        return by_blocks(of_block, rows, block)

    def states(self, rows: TextRows) -> np.ndarray:
        """float32 [n, T, D], of segments that are known by now."""
        placed = [segments_of(rows, row) for row in range(len(rows.tokens))]
        self._meet({key for some in placed for _, key in some} - self.known.keys())
        states = np.zeros((*rows.tokens.shape, self.network.config.d_model), np.float32)
        for row, some in enumerate(placed):
            for start, key in some:
                states[row, start : start + len(key[1])] = self.known[key]
        return states

    def _meet(self, keys: set[Key]) -> None:
        """In batches of one length each, powers of two."""
        by_length: dict[int, list[Key]] = {}
        for key in sorted(keys):
            by_length.setdefault(max(8, 1 << (len(key[1]) - 1).bit_length()), []).append(key)
        for length, some in by_length.items():
            for start in range(0, len(some), _ROWS):
                batch = some[start : start + _ROWS]
                columns = {name: np.zeros((_ROWS, length), np.int32) for name in ("tokens", "side", "segment")}
                for row, (side, tokens) in enumerate(batch):
                    columns["tokens"][row, : len(tokens)], columns["side"][row, : len(tokens)] = tokens, side
                states = np.asarray(below(self.network, self.params, columns))
                self.known |= {key: states[row, : len(key[1])] for row, key in enumerate(batch)}


def segments_of(rows: TextRows, row: int) -> list[tuple[int, Key]]:
    """Where each segment of a row begins, and which it is."""
    side, segment = rows.side[row], rows.segment[row]
    length = int((side != NOTHING).sum())
    changes = 1 + np.flatnonzero((np.diff(side[:length]) != 0) | (np.diff(segment[:length]) != 0))
    ends = [*changes.tolist(), length]
    return [
        (start, (int(side[start]), tuple(rows.tokens[row, start:end].tolist())))
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]


@functools.partial(jax.jit, static_argnums=0)
def below(network: M6Network, params: Any, batch: Any) -> jax.Array:
    """[B, T, D] of rows that are one segment each."""
    return applied(network, params, batch, method="kept")


@functools.partial(jax.jit, static_argnums=0)
def above(network: M6Network, params: Any, states: jax.Array, columns: Any) -> jax.Array:
    """float32 [B], logits of class 1 against class 0, of kept states."""
    return against(applied(network, params, states, columns, method="joined")[:, -1])
