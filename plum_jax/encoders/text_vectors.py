"""Vectors of texts by a language model as it was imported: what nothing was trained for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from plum_jax.encoders.language_model import LanguageModelStart
from plum_jax.encoders.network import TextEncoder

_BLOCK = 64  # texts of one device call
_STEP = 8  # lengths are multiples of it, so that few programs are compiled


def text_vectors(start: LanguageModelStart, texts: Sequence[str], length: int) -> np.ndarray:
    """float32 [n, D] of length one, the mean of each text's states.

    Args:
      start: an imported model.
      texts: n of them.
      length: tokens that are read of each.

    Raises:
      ValueError: a model without parameters of its own.
    """
    if start.params is None:
        raise ValueError("expected a language model with imported weights: vectors of random ones say nothing")
    encoder, params = TextEncoder(start.config, start.vocab_size, "mean"), jax.device_put(start.encoder_params)
    rows = start.rows(texts, length)
    found = np.zeros((len(texts), start.config.d_model), np.float32)
    order = np.argsort(rows.lengths, kind="stable")
    for first in range(0, len(order), _BLOCK):
        block = order[first : first + _BLOCK]
        tokens, lengths = rows.of(np.pad(block, (0, _BLOCK - len(block)), mode="edge"))
        tokens = np.pad(tokens, ((0, 0), (0, -tokens.shape[1] % _STEP)))
        found[block] = np.asarray(_apply(encoder, params, tokens, lengths))[: len(block)]
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


@functools.partial(jax.jit, static_argnums=0)
def _apply(encoder: TextEncoder, params: Any, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    return encoder.bind({"params": params})(tokens, lengths)
