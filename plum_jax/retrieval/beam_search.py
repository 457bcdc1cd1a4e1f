"""Beam search over Semantic IDs as one jitted program: constrained to a trie, or free.

A prompt is read once. The beams of a user share its keys and values: the m beam tokens of a level are m queries of one
sequence, written to m new cache slots, and the mask lets each beam see the prompt and its own ancestors. So the cache
is never reordered, and never repeated for each beam.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from plum_jax.model.cache import KVCache, empty_cache
from plum_jax.model.decoder import Decoder
from plum_jax.retrieval.top_k import top_k
from plum_jax.retrieval.trie import SidTrie, TrieState

Params = Any


@flax.struct.dataclass
class _Beams:
    """The m best prefixes of l codes, best first.

    Attributes:
      codes: int32 `[B, m, l]`.
      log_probs: float32 `[B, m]`, -inf where there was no continuation left.
      states: where they stand in the trie (None in a free search).
      visible: bool `[B, m, S]`, the cache slots that a beam's next token may look at, its own not among them yet.
    """

    codes: jax.Array
    log_probs: jax.Array
    states: TrieState | None
    visible: jax.Array


@functools.partial(jax.jit, static_argnames=("decoder", "sid_offsets", "codebook_sizes", "num_beams", "start_token"))
def beam_search(
    decoder: Decoder,
    params: Params,
    prompts: jax.Array,
    lengths: jax.Array,
    *,
    sid_offsets: tuple[int, ...],
    codebook_sizes: tuple[int, ...],
    num_beams: int,
    trie: SidTrie | None = None,
    start_token: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """The `num_beams` most probable SIDs after each prompt, as a beam of that width finds them.

    Exact when `num_beams` is at least the number of prefixes of every length (the number of items is always enough).

    Args:
      decoder: static; one program is compiled for each.
      params: its parameters.
      prompts: int32 `[B, T]`, right-padded; the tokens before the target, without the start token.
      lengths: int32 `[B]`, real tokens of each prompt.
      sid_offsets: token id of code 0 at each level.
      codebook_sizes: W of each level.
      num_beams: M.
      start_token: put first, as in training, where inputs are targets shifted right.
      trie: the SIDs allowed; None searches all codes of each level, whether such an item exists or not.

    Returns:
      codes int32 `[B, M, L]` and log_probs float32 `[B, M]`, best first. A log-probability is the sum of the model's
      own ones, normalised over the whole vocabulary. Where fewer than M SIDs exist, the rest is -1 and -inf.
    """
    if trie is not None and trie.codebook_sizes != codebook_sizes:
        raise ValueError(f"expected a trie over {codebook_sizes=}, got one over {trie.codebook_sizes}")
    hidden, cache, beams = _read_prompts(decoder, params, prompts, lengths, start_token)
    if trie is not None:
        beams = dataclasses.replace(beams, states=trie.root(prompts.shape[0]))
    for level, (offset, size) in enumerate(zip(sid_offsets, codebook_sizes, strict=True)):
        if level:
            tokens = beams.codes[:, :, -1] + sid_offsets[level - 1]
            hidden, cache, beams = _read_beams(decoder, params, tokens, lengths + level, cache, beams)
        logits = _apply(decoder, params, "logits", hidden).astype(jnp.float32)
        log_probs = logits[:, :, offset : offset + size] - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        beams = _extend(beams, log_probs, num_beams, trie, level)
    found = beams.log_probs > -jnp.inf
    missing = (0, num_beams - found.shape[1])
    codes = jnp.pad(jnp.where(found[..., None], beams.codes, -1), ((0, 0), missing, (0, 0)), constant_values=-1)
    return codes, jnp.pad(beams.log_probs, ((0, 0), missing), constant_values=-jnp.inf)


def _read_prompts(
    decoder: Decoder, params: Params, prompts: jax.Array, lengths: jax.Array, start_token: int
) -> tuple[jax.Array, KVCache, _Beams]:
    """States `[B, 1, D]` that predict level 0, the prompts' keys and values, and one empty beam for each user."""
    tokens = jnp.pad(prompts, ((0, 0), (1, 0)), constant_values=start_token)
    batch, slots = tokens.shape
    places = jnp.arange(slots, dtype=jnp.int32)
    # Causal is enough: nobody reads what comes after a prompt's end.
    causal = jnp.broadcast_to(places[:, None] >= places, (batch, slots, slots))
    positions = jnp.broadcast_to(places, (batch, slots))
    cache = empty_cache(decoder.config, batch, slots)
    hidden, cache, _ = _apply(decoder, params, "hidden", tokens, positions, causal, cache)
    last = jnp.take_along_axis(hidden, lengths[:, None, None], axis=1)
    beams = _Beams(
        codes=jnp.zeros((batch, 1, 0), jnp.int32),
        log_probs=jnp.zeros((batch, 1), jnp.float32),
        states=None,
        visible=(places <= lengths[:, None])[:, None],
    )
    return last, cache, beams


def _read_beams(
    decoder: Decoder, params: Params, tokens: jax.Array, positions: jax.Array, cache: KVCache, beams: _Beams
) -> tuple[jax.Array, KVCache, _Beams]:
    """States `[B, m, D]` after the newest tokens `[B, m]` of the beams, which get m more cache slots."""
    batch, width = tokens.shape
    own = jnp.broadcast_to(jnp.eye(width, dtype=bool), (batch, width, width))
    visible = jnp.concatenate([beams.visible, own], axis=2)
    positions = jnp.broadcast_to(positions[:, None], tokens.shape)
    hidden, cache, _ = _apply(decoder, params, "hidden", tokens, positions, visible, cache.with_room(width))
    return hidden, cache, dataclasses.replace(beams, visible=visible)


def _apply(decoder: Decoder, params: Params, method: str, *arguments: Any) -> Any:
    return decoder.apply({"params": params}, *arguments, method=method)


def _extend(beams: _Beams, log_probs: jax.Array, num_beams: int, trie: SidTrie | None, level: int) -> _Beams:
    """The best continuations of `beams` by one code, given `log_probs` [B, m, W] of the next code."""
    batch, width, _ = log_probs.shape
    if trie is not None and beams.states is not None:
        log_probs = trie.scores(level, beams.states, log_probs)
    fan_out = log_probs.shape[2]
    scores = (beams.log_probs[:, :, None] + log_probs).reshape(batch, width * fan_out)
    num_kept = min(num_beams, width * fan_out, width * fan_out if trie is None else trie.num_prefixes[level])
    kept, place = top_k(scores, num_kept)
    parent, place = jnp.divmod(place, fan_out)
    code, states = place, None
    if trie is not None and beams.states is not None:
        code, states = trie.take(level, beams.states, parent, place)
    of_parent = jnp.take_along_axis(beams.codes, parent[:, :, None], axis=1)
    return _Beams(
        codes=jnp.concatenate([of_parent, code[:, :, None]], axis=2),
        log_probs=kept,
        states=states,
        visible=jnp.take_along_axis(beams.visible, parent[:, :, None], axis=1),
    )
