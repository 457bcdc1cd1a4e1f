"""Beam search over Semantic IDs as one jitted program: constrained to a trie, or free."""

from __future__ import annotations

import functools

import jax

from plum_jax.model.decoder import Decoder
from plum_jax.retrieval.beams import (
    Params,
    Scores,
    SidTokens,
    begin,
    code_log_probs,
    extended,
    found,
    num_kept,
    read_beams,
)
from plum_jax.retrieval.exclusion import Exclusion
from plum_jax.retrieval.top_k import top_k
from plum_jax.retrieval.trie import SidTrie


@functools.partial(
    jax.jit, static_argnames=("decoder", "sid_offsets", "codebook_sizes", "num_beams", "scores", "start_token")
)
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
    sets: jax.Array | None = None,
    excluded: Exclusion | None = None,
    scores: Scores = "model",
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
      trie: the SIDs allowed; None searches all codes of each level, whether such an item exists or not.
      sets: int32 `[B]`, which set of a trie of several each user's SIDs are from; None: the first.
      excluded: prefixes that a user's beams may not take.
      scores: how the log-probability of each code is normalised: "model", over the whole vocabulary, or "renormalised",
        over the codes that the trie (and `excluded`) leave at this step.
      start_token: put first, as in training, where inputs are targets shifted right.

    Returns:
      codes int32 `[B, M, L]` and log_probs float32 `[B, M]`, best first. A log-probability is the sum of
      those of the codes. Where fewer than M SIDs exist, the rest is -1 and -inf.
    """
    sids = SidTokens(sid_offsets, codebook_sizes)
    reading, beams = begin(decoder, params, prompts, lengths, sids, trie, sets, start_token)
    for level in range(len(codebook_sizes)):
        if level:
            reading, beams = read_beams(decoder, params, sids, reading, beams)
        code_scores = code_log_probs(decoder, params, sids, reading, beams, scores, trie, excluded)
        fan_out = code_scores.shape[2]
        sums = (beams.log_probs[:, :, None] + code_scores).reshape(prompts.shape[0], -1)
        log_probs, kept = top_k(sums, num_kept(num_beams, code_scores, trie, level))
        beams = extended(beams, trie, kept // fan_out, kept % fan_out, log_probs)
    return found(beams, num_beams)
