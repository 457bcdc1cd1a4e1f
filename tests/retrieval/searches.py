"""What tests of searches share: prompts padded, and a search's answer as numpy arrays."""

import jax.numpy as jnp
import numpy as np
from tiny_decoder import bigram_code_log_probs, sid_offsets

from plum_jax.retrieval.beam_search import beam_search
from plum_jax.retrieval.trie import SidTrie

SIZES = (4, 5, 3)


def all_sids(sizes):
    return np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1).reshape(-1, len(sizes))


def some_sids(count=25, seed=1, sizes=SIZES):
    return np.unique(np.random.default_rng(seed).integers(0, sizes, (count, len(sizes))), axis=0)


def padded(prompts, longest=0):
    """Tokens `[B, T]` and lengths; what pads a prompt must not matter."""
    lengths = np.array([len(prompt) for prompt in prompts])
    tokens = np.full((len(prompts), max(longest, *lengths) + 3), 5)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    return jnp.asarray(tokens), jnp.asarray(lengths)


def run(method, model, params, prompts, *keys, codes=None, sizes=SIZES, trie=None, longest=0, **options):
    """`method` over the items `codes` (None: free, unless there is a `trie`); arrays as numpy's."""
    if codes is not None:
        trie = SidTrie.from_codes(codes, sizes)
    found = method(
        model,
        params,
        *padded(prompts, longest),
        *keys,
        sid_offsets=sid_offsets(sizes),
        codebook_sizes=sizes,
        trie=trie,
        **options,
    )
    return tuple(np.asarray(x) for x in found)


def search(model, params, num_beams, codes=None, sizes=SIZES, prompts=(), **options):
    """Beam search."""
    return run(beam_search, model, params, prompts, codes=codes, sizes=sizes, num_beams=num_beams, **options)


def bigram_beam(params, last, num_beams, items, scores):
    """Beam search after token `last` by the book: codes [m, L] and float64 log_probs [m], best first."""
    beams = {(): 0.0}
    offsets = sid_offsets(SIZES)
    for level in range(items.shape[1]):
        found = {}
        for prefix, score in beams.items():
            before = last if not prefix else offsets[level - 1] + prefix[-1]
            codes = sorted({int(item[level]) for item in items if tuple(item[:level].tolist()) == prefix})
            log_probs = bigram_code_log_probs(params, before, offsets[level] + np.array(codes), scores)
            found |= {(*prefix, code): score + log_prob for code, log_prob in zip(codes, log_probs, strict=True)}
        beams = dict(sorted(found.items(), key=lambda pair: -pair[1])[:num_beams])
    return np.array(list(beams)), np.array(list(beams.values()))
