"""Reading token by token with keys and values kept: one program for the prompts, one for every token behind them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from plum_jax.model.attention import EinsumAttention
from plum_jax.model.cache import KVCache
from plum_jax.model.decoder import Decoder

_MULTIPLE = 16  # prompts are padded to so many tokens, less the one that begins, so that few programs are compiled


@flax.struct.dataclass
class ReadSoFar:
    """What has been read of R rows.

    Attributes:
      cache: two pieces: the prompts', and one with room for all tokens that follow.
      prompt: bool `[R, 1, S]`, which slots of the first are real.
      lengths: int32 `[R]`, the position of each prompt's last token.
      count: int32, tokens read behind the prompts: the same for all rows.
    """

    cache: KVCache
    prompt: jax.Array
    lengths: jax.Array
    count: jax.Array


@functools.partial(jax.jit, static_argnames=("decoder", "room", "start_token"))
def read_prompts(
    decoder: Decoder, params: Any, prompts: jax.Array, lengths: jax.Array, *, room: int, start_token: int
) -> tuple[jax.Array, ReadSoFar]:
    """Log-probabilities float32 `[R, V]` of the token after each prompt, and what has been read.

    Args:
      decoder, params: the model.
      prompts: int32 `[R, T]`, right-padded, without the start token.
      lengths: int32 `[R]`, real tokens.
      room: tokens that may follow.
      start_token: put first, as in training.
    """
    found: Any = decoder.apply({"params": params}, prompts, lengths, start_token, method="read_prompts")
    hidden, cache, real, lengths = found
    (piece,), (positions,) = cache.pieces, cache.positions
    # [..., R, T, K, H]: layers lead where they are scanned.
    empty = jax.tree.map(lambda x: jnp.zeros((*x.shape[:-3], room, *x.shape[-2:]), x.dtype), piece)
    behind = lengths[:, None] + 1 + jnp.arange(room, dtype=jnp.int32)
    read = ReadSoFar(KVCache((piece, empty), (positions, behind)), real, lengths, jnp.int32(0))
    return _log_probs(decoder, params, hidden), read


@functools.partial(jax.jit, static_argnames=("decoder",), donate_argnames=("read",))
def read_token(decoder: Decoder, params: Any, read: ReadSoFar, tokens: jax.Array) -> tuple[jax.Array, ReadSoFar]:
    """Reads one token of each row (int32 `[R]`): log-probabilities float32 `[R, V]` of the next, and what was read.

    The same program for every token: what is not written yet is masked, not absent.
    """
    room = read.cache.positions[1].shape[1]
    positions = (read.lengths + 1 + read.count)[:, None]
    rows = tokens.shape[0]
    written = jnp.broadcast_to(jnp.arange(room) < read.count, (rows, 1, room))
    mask = jnp.concatenate([read.prompt, written, jnp.ones((rows, 1, 1), bool)], axis=2)
    one = decoder.clone(attention=EinsumAttention())
    output: Any = one.apply({"params": params}, tokens[:, None], positions, mask, read.cache, method="hidden")
    prompt, behind, new = output.cache.pieces
    behind = jax.tree.map(lambda old, x: lax.dynamic_update_slice_in_dim(old, x, read.count, old.ndim - 3), behind, new)
    cache = KVCache((prompt, behind), read.cache.positions)
    log_probs = _log_probs(decoder, params, output.values)
    return log_probs, dataclasses.replace(read, cache=cache, count=read.count + 1)


@jax.jit
def reordered(read: ReadSoFar, rows: jax.Array) -> ReadSoFar:
    """What the rows (int32 `[R]`) of another reading are: beams go on from their parents."""
    cache = KVCache(
        jax.tree.map(lambda x: jnp.take(x, rows, axis=x.ndim - 4), read.cache.pieces),
        tuple(jnp.take(x, rows, axis=0) for x in read.cache.positions),
    )
    return ReadSoFar(cache, read.prompt[rows], read.lengths[rows], read.count)


def padded_prompts(prompts: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """int32 `[R, T]` and lengths int32 `[R]`; with the token that begins, T is a multiple of 16."""
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    longest = -(-(int(lengths.max(initial=0)) + 1) // _MULTIPLE) * _MULTIPLE - 1
    tokens = np.zeros((len(prompts), longest), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    return tokens, lengths


def _log_probs(decoder: Decoder, params: Any, hidden: jax.Array) -> jax.Array:
    logits = jnp.asarray(decoder.apply({"params": params}, hidden, method="logits"), jnp.float32)
    return jax.nn.log_softmax(logits[:, 0], axis=-1)
