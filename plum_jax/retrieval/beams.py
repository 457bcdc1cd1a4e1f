"""What every search over Semantic IDs shares: prompts read once, beams that share their keys, candidates for a code.

The m beam tokens of a level are m queries of one sequence. They make a piece of m keys, and a mask lets each beam see
the prompt and its own ancestors: the cache is never reordered, and never repeated for each beam.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import flax.struct
import jax
import jax.numpy as jnp

from plum_jax.model.beam_attention import BeamAttention
from plum_jax.model.cache import KVCache
from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import BeamMasks
from plum_jax.retrieval.exclusion import Exclusion
from plum_jax.retrieval.trie import SidTrie

Params = Any
Scores = Literal["model", "renormalised"]


@dataclasses.dataclass(frozen=True)
class SidTokens:
    """Where the tokens of Semantic IDs are.

    Attributes:
      offsets: token id of code 0 at each level.
      codebook_sizes: W of each level.
    """

    offsets: tuple[int, ...]
    codebook_sizes: tuple[int, ...]


@flax.struct.dataclass
class Reading:
    """What the decoder has read.

    Attributes:
      hidden: `[B, m, D]`, states that predict the next code of each beam.
      cache: keys and values of the prompts, then one piece for each level.
      prompt: bool `[B, 1, S]`, which slots of the prompts' piece are real.
      lengths: int32 `[B]`, the position of each prompt's last token; the first code is read at the next.
    """

    hidden: jax.Array
    cache: KVCache
    prompt: jax.Array
    lengths: jax.Array


@flax.struct.dataclass
class Beams:
    """Prefixes of l codes.

    Attributes:
      codes: int32 `[B, m, l]`.
      log_probs: float32 `[B, m]`, -inf where there was no continuation left.
      states: where they stand in the trie; None in a free search.
      ancestors: int32 `[B, m, r]`, for each of the r levels whose tokens were read, which of its keys is the beam's.
    """

    codes: jax.Array
    log_probs: jax.Array
    states: Any
    ancestors: jax.Array


def begin(
    decoder: Decoder,
    params: Params,
    prompts: jax.Array,
    lengths: jax.Array,
    sids: SidTokens,
    trie: SidTrie | None,
    sets: jax.Array | None,
    start_token: int,
) -> tuple[Reading, Beams]:
    """The prompts read, and one empty beam for each user; the arguments are those of `beam_search`.

    Raises:
      ValueError: the trie is over other codebooks.
    """
    if trie is not None and trie.codebook_sizes != sids.codebook_sizes:
        sizes = sids.codebook_sizes
        raise ValueError(f"expected a trie over codebook_sizes={sizes}, got one over {trie.codebook_sizes}")
    reading = Reading(*_apply(decoder, params, "read_prompts", prompts, lengths, start_token))
    return reading, _first_beams(prompts.shape[0], trie, sets)


def _first_beams(batch: int, trie: SidTrie | None, sets: jax.Array | None = None) -> Beams:
    """One empty beam for each user, at the root of the user's set."""
    states = None if trie is None else trie.root(batch, sets)
    nothing = jnp.zeros((batch, 1, 0), jnp.int32)
    return Beams(nothing, jnp.zeros((batch, 1), jnp.float32), states, nothing)


def read_beams(
    decoder: Decoder, params: Params, sids: SidTokens, reading: Reading, beams: Beams
) -> tuple[Reading, Beams]:
    """Reads the newest code of every beam."""
    batch, width, read = beams.codes.shape
    tokens = beams.codes[:, :, -1] + sids.offsets[read - 1]
    positions = jnp.broadcast_to((reading.lengths + read)[:, None], tokens.shape)
    own = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32)[:, None], (batch, width, 1))
    beams = dataclasses.replace(beams, ancestors=jnp.concatenate([beams.ancestors, own], axis=2))
    masks = BeamMasks(reading.prompt, beams.ancestors)
    of_beams = decoder.clone(attention=BeamAttention())
    hidden, cache, _ = _apply(of_beams, params, "hidden", tokens, positions, masks, reading.cache)
    return dataclasses.replace(reading, hidden=hidden, cache=cache), beams


def code_log_probs(
    decoder: Decoder,
    params: Params,
    sids: SidTokens,
    reading: Reading,
    beams: Beams,
    scores: Scores,
    trie: SidTrie | None,
    excluded: Exclusion | None = None,
) -> jax.Array:
    """float32 `[B, m, F]`: log-probabilities of the continuations of `beams` by one code; -inf where there is none.

    Args:
      decoder, params, sids, reading, beams: what has been read.
      scores: "model": normalised as the decoder was trained, over the whole vocabulary or over a level's codes;
        "renormalised": over the continuations that there are.
      trie: the SIDs that there are, and its F; None: all W codes.
      excluded: prefixes not to be taken by each user.
    """
    if scores not in get_args(Scores):
        raise ValueError(f"expected scores to be one of {get_args(Scores)}, got {scores!r}")
    level = beams.codes.shape[2]
    first, size = sids.offsets[level], sids.codebook_sizes[level]
    logits = _apply(decoder, params, "logits", reading.hidden).astype(jnp.float32)
    allowed = logits[:, :, first : first + size]
    if excluded is not None:
        allowed = jnp.where(excluded.forbidden(beams.codes, size), -jnp.inf, allowed)
    if trie is not None:
        allowed = trie.scores(level, beams.states, allowed)
    of_model = logits[:, :, first : first + size] if decoder.normalised_by_level else logits
    total = jax.nn.logsumexp(of_model if scores == "model" else allowed, axis=-1, keepdims=True)
    # Where nothing is left, -inf less -inf would not be a number.
    return jnp.where(allowed > -jnp.inf, allowed - total, -jnp.inf)


def num_kept(wanted: int, code_scores: jax.Array, trie: SidTrie | None, level: int) -> int:
    """`wanted` beams, or as many as there can be: continuations `[B, m, F]` of this level, prefixes in the trie."""
    _, width, fan_out = code_scores.shape
    exist = width * fan_out if trie is None else min(width * fan_out, trie.num_prefixes[level])
    return min(wanted, exist)


def extended(beams: Beams, trie: SidTrie | None, parent: jax.Array, place: jax.Array, log_probs: jax.Array) -> Beams:
    """The continuations `place` [B, n] (of F) of the beams `parent` [B, n], which have these `log_probs` [B, n]."""
    level = beams.codes.shape[2]
    codes, states = (place, None) if trie is None else trie.take(level, beams.states, parent, place)
    before, ancestors = (jnp.take_along_axis(x, parent[:, :, None], axis=1) for x in (beams.codes, beams.ancestors))
    return Beams(jnp.concatenate([before, codes[:, :, None]], axis=2), log_probs, states, ancestors)


def found(beams: Beams, num_beams: int) -> tuple[jax.Array, jax.Array]:
    """codes int32 `[B, M, L]` and log_probs float32 `[B, M]`; -1 and -inf where no SID was found."""
    real = beams.log_probs > -jnp.inf
    missing = (0, num_beams - real.shape[1])
    codes = jnp.pad(jnp.where(real[..., None], beams.codes, -1), ((0, 0), missing, (0, 0)), constant_values=-1)
    return codes, jnp.pad(beams.log_probs, ((0, 0), missing), constant_values=-jnp.inf)


def _apply(decoder: Decoder, params: Params, method: str, *arguments: Any, **options: Any) -> Any:
    return decoder.apply({"params": params}, *arguments, method=method, **options)
