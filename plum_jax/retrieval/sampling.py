"""Semantic IDs drawn from the model: independently, or without replacement."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from plum_jax.model.decoder import Decoder
from plum_jax.retrieval.beams import (
    Params,
    SidTokens,
    begin,
    code_log_probs,
    extended,
    found,
    read_beams,
)
from plum_jax.retrieval.exclusion import Exclusion
from plum_jax.retrieval.top_k import top_k
from plum_jax.retrieval.trie import SidTrie


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What a code is drawn from: the model's probabilities of the codes that exist, changed in this order.

    Attributes:
      temperature: log-probabilities are divided by it; below 1 sharpens.
      top_k: only so many codes of each prefix, the most probable; None: all.
      top_p: only the most probable codes that together have at least this probability (nucleus, arXiv 1904.09751).
      without_replacement: no SID twice, by Gumbel top-k down the tree ("stochastic beams", arXiv 1903.06059): the first
        is a draw, the second one from what is left, and so on, from the product of the codes' probabilities.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    without_replacement: bool = False

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 < self.top_p <= 1 or (self.top_k is not None and self.top_k < 1):
            raise ValueError(f"expected temperature > 0, 0 < top_p <= 1 and top_k of None or at least 1, got {self}")

    def log_probs(self, log_probs: jax.Array) -> jax.Array:
        """What is drawn from, normalised, of log-probabilities `[..., F]`; -inf where there is nothing to draw."""
        scores = log_probs / self.temperature
        if self.top_k is not None or self.top_p < 1:
            order = jnp.argsort(scores, axis=-1, descending=True)
            rank = jnp.argsort(order, axis=-1)
            probs = jnp.take_along_axis(jax.nn.softmax(scores, axis=-1), order, axis=-1)
            before = jnp.cumsum(probs, axis=-1) - probs
            kept = jnp.sum(before < self.top_p, axis=-1, keepdims=True) if self.top_p < 1 else scores.shape[-1]
            kept = kept if self.top_k is None else jnp.minimum(kept, self.top_k)
            scores = jnp.where(rank < kept, scores, -jnp.inf)
        total = jax.nn.logsumexp(scores, axis=-1, keepdims=True)
        return jnp.where(scores > -jnp.inf, scores - total, -jnp.inf)


@functools.partial(
    jax.jit, static_argnames=("decoder", "sid_offsets", "codebook_sizes", "num_samples", "sampling", "start_token")
)
def sample(
    decoder: Decoder,
    params: Params,
    prompts: jax.Array,
    lengths: jax.Array,
    keys: jax.Array,
    *,
    sid_offsets: tuple[int, ...],
    codebook_sizes: tuple[int, ...],
    num_samples: int,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    trie: SidTrie | None = None,
    sets: jax.Array | None = None,
    excluded: Exclusion | None = None,
    start_token: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """SIDs drawn after each prompt. Arguments that are not here are those of `beam_search`.

    Args:
      keys: random keys `[B]`, one for each user: what is drawn does not depend on the batch.
      num_samples: M.
      sampling: what a code is drawn from.

    Returns:
      codes int32 `[B, M, L]` in the order of the draws, and log_probs float32 `[B, M]` of the distribution that they
      are drawn from; -1 and -inf where fewer SIDs exist (without replacement) or none at all.
    """
    sids = SidTokens(sid_offsets, codebook_sizes)
    reading, beams = begin(decoder, params, prompts, lengths, sids, trie, sets, start_token)
    perturbed = jnp.zeros((prompts.shape[0], 1))  # the Gumbel scores of the beams, where there is no replacement
    for level in range(len(codebook_sizes)):
        if level:
            reading, beams = read_beams(decoder, params, sids, reading, beams)
        codes = code_log_probs(decoder, params, sids, reading, beams, "renormalised", trie, excluded)
        codes = sampling.log_probs(codes)
        level_keys = jax.vmap(functools.partial(jax.random.fold_in, data=level))(keys)
        if sampling.without_replacement:
            sums = beams.log_probs[:, :, None] + codes
            width, fan_out = codes.shape[1:]
            scores = _conditioned(perturbed, sums, sums + _gumbel(level_keys, sums.shape[1:]))
            perturbed, kept = top_k(scores.reshape(prompts.shape[0], -1), min(num_samples, width * fan_out))
            parent, place = kept // fan_out, kept % fan_out
            log_probs = jnp.take_along_axis(sums.reshape(prompts.shape[0], -1), kept, axis=1)
        else:
            codes = jnp.broadcast_to(codes, (prompts.shape[0], num_samples, codes.shape[2]))
            place = jnp.argmax(codes + _gumbel(level_keys, codes.shape[1:]), axis=2)
            one_each = jnp.arange(num_samples) if level else jnp.zeros(num_samples, jnp.int32)
            parent = jnp.broadcast_to(one_each, place.shape)
            log_probs = jnp.take_along_axis(beams.log_probs, parent, axis=1)
            log_probs += jnp.take_along_axis(codes, place[:, :, None], axis=2)[:, :, 0]
        beams = extended(beams, trie, parent, place, log_probs)
    return found(beams, num_samples)


def _gumbel(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`[B, *shape]`, a row's draws from its own key."""
    return jax.vmap(lambda key: jax.random.gumbel(key, shape))(keys)


def _conditioned(parent: jax.Array, log_probs: jax.Array, gumbels: jax.Array) -> jax.Array:
    """Gumbel scores `[B, m, F]` of children, given that the largest of a beam's is the beam's own (Kool, appendix B.3).

    Args:
      parent: `[B, m]`, the beams' Gumbel scores.
      log_probs: `[B, m, F]` of the children; -inf where there is none.
      gumbels: `log_probs` plus free Gumbel noise.
    """
    largest = jnp.max(gumbels, axis=2, keepdims=True)
    exist = log_probs > -jnp.inf
    below = jnp.where(exist, gumbels - largest, -1.0)  # anything but what gives no number
    v = parent[:, :, None] - jnp.where(exist, gumbels, 0.0) + jnp.log1p(-jnp.exp(below))
    scores = parent[:, :, None] - jnp.maximum(v, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(v)))
    return jnp.where(exist, scores, -jnp.inf)
