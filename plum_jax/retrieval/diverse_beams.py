"""Diverse beam search (Vijayakumar et al., arXiv 1610.02424): groups of beams that avoid each other's codes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.evaluation.metrics import NOTHING
from plum_jax.model.decoder import Decoder
from plum_jax.retrieval.beams import (
    Beams,
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
    jax.jit,
    static_argnames=("decoder", "sid_offsets", "codebook_sizes", "num_beams", "num_groups", "scores", "start_token"),
)
def diverse_beam_search(
    decoder: Decoder,
    params: Params,
    prompts: jax.Array,
    lengths: jax.Array,
    *,
    sid_offsets: tuple[int, ...],
    codebook_sizes: tuple[int, ...],
    num_beams: int,
    num_groups: int,
    penalty: float,
    trie: SidTrie | None = None,
    sets: jax.Array | None = None,
    excluded: Exclusion | None = None,
    scores: Scores = "model",
    start_token: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Groups of beams, one after the other at each level. Arguments that are not here are those of `beam_search`.

    A group keeps the beams of the largest log-probability less `penalty` times the number of beams of earlier groups
    that took the same code at this level (the paper's Hamming diversity; penalties of earlier levels are not carried
    on, as in its algorithm 1). Two groups may find the same SID.

    Args:
      num_beams: M, of all groups together.
      num_groups: G, divides M; with one the search is `beam_search`.
      penalty: in nats, a traced number: another one does not compile again.

    Returns:
      codes int32 `[B, G, M / G, L]` and log_probs float32 `[B, G, M / G]`, those of the SIDs, without penalties; a
      group's in the order in which it prefers them; ended by -1 and -inf.
    """
    if num_groups < 1 or num_beams % num_groups:
        raise ValueError(f"expected num_groups to divide num_beams, got {num_beams=} {num_groups=}")
    sids = SidTokens(sid_offsets, codebook_sizes)
    reading, beams = begin(decoder, params, prompts, lengths, sids, trie, sets, start_token)
    for level, size in enumerate(codebook_sizes):
        if level:
            reading, beams = read_beams(decoder, params, sids, reading, beams)
        code_scores = code_log_probs(decoder, params, sids, reading, beams, scores, trie, excluded)
        taken = jnp.zeros((prompts.shape[0], size))
        groups = []
        for number in range(num_groups):
            group, own = _group((beams, code_scores), number, num_groups if level else 1)
            group = _best(group, own, -penalty * taken, num_beams // num_groups, trie)
            real = (group.log_probs > -jnp.inf)[:, :, None]
            taken += jnp.sum(real & (group.codes[:, :, -1:] == jnp.arange(size)), axis=1)
            groups.append(group)
        beams = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *groups)
    width = num_beams // num_groups
    by_group = [found(_group(beams, number, num_groups), width) for number in range(num_groups)]
    codes, log_probs = (jnp.stack(parts, axis=1) for parts in zip(*by_group, strict=True))
    return codes, log_probs


def _group(tree: tuple[Beams, jax.Array] | Beams, number: int, num_groups: int):  # type: ignore[no-untyped-def]
    """The part of one group of arrays `[B, G * m, ...]`."""

    def part(x: jax.Array) -> jax.Array:
        width = x.shape[1] // num_groups
        first = number * width if num_groups > 1 else 0
        return x[:, first : first + width]

    return jax.tree.map(part, tree)


def _best(beams: Beams, code_scores: jax.Array, bonus: jax.Array, wanted: int, trie: SidTrie | None) -> Beams:
    """The continuations of the largest log-probability plus the `bonus` [B, W] of their code."""
    batch, width, fan_out = code_scores.shape
    level = beams.codes.shape[2]
    of_code = jnp.broadcast_to(bonus[:, None], (batch, width, bonus.shape[1]))
    if trie is not None:
        of_code = trie.scores(level, beams.states, of_code)
    sums = beams.log_probs[:, :, None] + code_scores
    _, kept = top_k((sums + of_code).reshape(batch, -1), num_kept(wanted, code_scores, trie, level))
    log_probs = jnp.take_along_axis(sums.reshape(batch, -1), kept, axis=1)
    return extended(beams, trie, kept // fan_out, kept % fan_out, log_probs)


def distinct(codes: np.ndarray, log_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What groups found, best first, a SID that several found only once; -1 and -inf at the end.

    Args:
      codes: int32 [U, M, L].
      log_probs: float32 [U, M].
    """
    order = np.argsort(-log_probs, axis=1, kind="stable")
    codes, log_probs = np.take_along_axis(codes, order[..., None], axis=1), np.take_along_axis(log_probs, order, axis=1)
    same = (codes[:, :, None] == codes[:, None, :]).all(axis=-1)
    earlier = np.tri(codes.shape[1], k=-1, dtype=bool)
    kept = ~(same & earlier).any(axis=2) & (log_probs > -np.inf)
    order = np.argsort(~kept, axis=1, kind="stable")
    codes = np.where(kept[..., None], codes, NOTHING)
    log_probs = np.where(kept, log_probs, -np.inf)
    return np.take_along_axis(codes, order[..., None], axis=1), np.take_along_axis(log_probs, order, axis=1)
