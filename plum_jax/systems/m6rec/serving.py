"""Scores of rows of text by a trained network, in the ways that a small machine wants them: int8, leaving early."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from plum_jax.model.int8 import quantised, size_in_bytes
from plum_jax.systems.m6rec.network import M6Network, against, applied
from plum_jax.systems.m6rec.rows import TextRows
from plum_jax.training.pruning import pruned_matrices, zero_share

BLOCK = 128  # rows of a device call
_FULL_PRECISION = "soft_prompts|classes"


@dataclasses.dataclass(frozen=True)
class Serving:
    """How a trained ranker scores.

    Attributes:
      int8: weights of 8 bits with a scale for each channel; soft prompts and class weights stay float32.
      exit_confidence: a row is answered by the first layer whose likelier class has this probability; of a network
        with `early_exit` alone. Above 1 every row goes to the last layer. None: all layers at once.
      keep_segments: the layers below the joining one are computed once a segment (`late.KeptSegments`).
    """

    int8: bool = False
    exit_confidence: float | None = None
    keep_segments: bool = False

    def __post_init__(self) -> None:
        if self.keep_segments and self.exit_confidence is not None:
            raise ValueError("kept segments go through all layers above them: expected no exit_confidence beside")

    def params(self, params: Any) -> Any:
        """What is kept in memory."""
        return quantised(params, kept=_FULL_PRECISION) if self.int8 else params

    def scores(self, network: M6Network, params: Any, rows: TextRows, block: int = BLOCK) -> tuple[np.ndarray, float]:
        """float32 [n] logits of class 1 against class 0, and the mean number of layers.

        Args:
          network: with classes.
          params: of `Serving.params`, host or device arrays.
          rows: a text each.
          block: rows of a device call.
        """
        if self.exit_confidence is None:
            params = jax.device_put(params)
            logits = by_blocks(lambda some: whole(network, params, some.columns()), rows, block)
            return logits, float(network.config.num_layers)
        found, layers = np.zeros(len(rows.tokens), np.float32), np.zeros(len(rows.tokens), np.int32)
        for start in range(0, len(rows.tokens), block):
            some = slice(start, start + block)
            found[some], layers[some] = self._leaving(network, params, rows.of(some))
        return found, float(layers.mean())

    def _leaving(self, network: M6Network, params: Any, rows: TextRows) -> tuple[np.ndarray, np.ndarray]:
        """Logits and layers of some rows: those that are sure leave, and the others go on in a smaller block."""
        if not network.heads.early_exit or network.form.late_layers is not None:
            raise ValueError(
                "exit_confidence needs a network with early_exit whose layers all see the whole text: set M6_EARLY_EXIT"
            )
        count = len(rows.tokens)
        found, left_at = np.zeros(count, np.float32), np.full(count, network.config.num_layers, np.int32)
        going, (x, columns) = np.arange(count), first_states(network, params, dict(rows.columns()))
        for number in range(network.config.num_layers):
            x, logits = next_layer(network, params, x, columns, number)
            logits = np.asarray(logits)[: len(going)]
            confidence = 1 / (1 + np.exp(-np.abs(logits)))
            leaves = (confidence >= self.exit_confidence) | (number == network.config.num_layers - 1)
            found[going[leaves]], left_at[going[leaves]] = logits[leaves], number + 1
            stays = np.flatnonzero(~leaves)
            if not len(stays):
                break
            # Blocks of powers of two: other sizes would be compiled anew.
            going, padded = going[stays], np.resize(stays, 1 << (len(stays) - 1).bit_length())
            x, columns = jax.tree.map(lambda value, kept=padded: value[kept], (x, columns))
        return found, left_at

    def size_in_bytes(self, params: Any) -> int:
        """Of the weights as they would be stored: where whole matrices have zeros, a bit an entry says which are not,
        and only those are kept.
        """
        whole = size_in_bytes(self.params(params))
        zeros = zero_share(params)
        if zeros < 0.05:
            return whole
        pruned = sum(leaf.size for leaf in pruned_matrices(params))
        width = 1 if self.int8 else 4
        return whole - round(pruned * (zeros * width - 1 / 8))


def by_blocks(compute: Callable[[TextRows], Any], rows: TextRows, size: int = BLOCK) -> np.ndarray:
    """[n, ...], what `compute` gives for rows, in blocks of one shape, the last filled up with its first row."""
    found = []
    for start in range(0, len(rows.tokens), size):
        places = np.arange(start, min(start + size, len(rows.tokens)))
        some = rows.of(np.concatenate([places, np.full(size - len(places), start)]))
        found.append(np.asarray(compute(some))[: len(places)])
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=0)
def whole(network: M6Network, params: Any, batch: Any) -> jax.Array:
    """float32 [B], logits of the last layer's exit."""
    return against(applied(network, params, batch)[:, -1])


@functools.partial(jax.jit, static_argnums=0)
def first_states(network: M6Network, params: Any, batch: Any) -> Any:
    """What `next_layer` begins with."""
    return applied(network, params, batch, method="entering")


@functools.partial(jax.jit, static_argnums=(0, 4))
def next_layer(network: M6Network, params: Any, x: jax.Array, columns: Any, number: int) -> tuple[jax.Array, jax.Array]:
    """One layer: its stream, and the logits float32 [B] of its exit."""
    x, logits = applied(network, params, x, columns, number, method="layer")
    return x, against(logits)
