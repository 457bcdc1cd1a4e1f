"""A random decoder over a small id space of text and SIDs, and its score of any SID by the full forward pass."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.model.cache import KVCache
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import BeamMasks

TEXT_TOKENS = 7


@functools.cache
def tiny_decoder(codebook_sizes, *, num_layers=1, seed=0, **config):
    """A decoder of width 8, and parameters large enough for its choices to depend on the prompt."""
    config = {"num_heads": 2, "num_kv_heads": 1, "head_dim": 4} | config
    sizes = DecoderConfig(num_layers=num_layers, d_model=8, mlp_dim=16, **config)
    decoder = Decoder(sizes, TEXT_TOKENS + sum(codebook_sizes))
    tokens = jnp.zeros((1, 2), jnp.int32)
    params = nn.unbox(jax.jit(decoder.init)(jax.random.key(seed), tokens, tokens, jnp.ones((1, 2, 2), bool)))["params"]
    return decoder, jax.tree.map(lambda x: 3.0 * x, params)


@dataclasses.dataclass(frozen=True)
class Bigram:
    """Stands where a decoder does, compiles at once: a token's row of `params["table"]` has the logits of the next."""

    vocab_size: int
    config: DecoderConfig = DecoderConfig(
        num_layers=1, d_model=2, num_heads=1, num_kv_heads=1, head_dim=2, scan_layers=False
    )

    normalised_by_level = False

    def apply(self, variables, *arguments, method):
        if method == "read_prompts":
            prompts, lengths, start_token = arguments
            tokens = jnp.pad(prompts, ((0, 0), (1, 0)), constant_values=start_token)
            places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
            last_tokens = jnp.take_along_axis(tokens, lengths[:, None], axis=1)[..., None]
            cache = KVCache().with_piece((None, None), places)
            return last_tokens, cache, (places <= lengths[:, None])[:, None], lengths
        if method == "logits":
            return variables["params"]["table"][arguments[0][..., 0]]
        tokens, positions, mask, cache = arguments
        cache = cache.with_piece((None, None), positions)
        if isinstance(mask, BeamMasks):
            assert mask.prompt.shape[2] == cache.positions[0].shape[1], "a mask for every token of the prompt"
            assert mask.ancestors.shape == (*tokens.shape, len(cache.positions) - 1), "an ancestor at every level"
        return tokens[..., None], cache, None

    def clone(self, **_):
        return self


def random_bigram(codebook_sizes, seed=0):
    """A bigram model and its parameters."""
    return bigram_of(TEXT_TOKENS + sum(codebook_sizes), seed)


def bigram_of(vocab_size, seed=0):
    return Bigram(vocab_size), {"table": jax.random.normal(jax.random.key(seed), (vocab_size, vocab_size))}


def bigram_log_probs(params, last_token, codes, offsets):
    """float64 [N]: log-probability of codes [N, L] after a prompt that ends with `last_token`."""
    log_probs = np.asarray(jax.nn.log_softmax(params["table"], axis=-1), np.float64)
    tokens = np.asarray(codes) + np.asarray(offsets)
    before = np.concatenate([np.full((len(tokens), 1), last_token), tokens[:, :-1]], axis=1)
    return log_probs[before, tokens].sum(axis=1)


def bigram_code_log_probs(params, last_token, tokens, scores):
    """float64 [n]: log-probability of `tokens` after `last_token`, in the whole vocabulary or among themselves."""
    logits = np.asarray(params["table"], np.float64)[last_token]
    among = logits if scores == "model" else logits[tokens]
    return logits[tokens] - np.log(np.exp(among).sum())


def sid_offsets(codebook_sizes):
    return tuple(int(x) for x in TEXT_TOKENS + np.cumsum([0, *codebook_sizes[:-1]]))


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(decoder, params, tokens):
    batch, length = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(length), (batch, length))
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (batch, length, length))
    logits, *_ = decoder.apply({"params": params}, tokens, positions, mask)
    return jax.nn.log_softmax(logits, axis=-1)


def sid_log_probs(decoder, params, prompt, codes, codebook_sizes):
    """float32 [N, L]: log-probability of each code of codes [N, L] after `prompt` and the codes before it; no cache."""
    codes = np.asarray(codes)
    targets = codes + np.asarray(sid_offsets(codebook_sizes))[: codes.shape[1]]
    inputs = np.concatenate([np.tile([0, *prompt], (len(codes), 1)), targets[:, :-1]], axis=1)
    # Causal, so that zeros at the end change nothing: one compiled shape for all prompts of a test.
    padded = np.pad(inputs, ((0, -len(inputs) % 64), (0, -inputs.shape[1] % 16)))
    log_probs = np.asarray(_log_probs(decoder, params, jnp.asarray(padded)))[: len(codes)]
    places = len(prompt) + np.arange(codes.shape[1])
    return np.take_along_axis(log_probs[:, places], targets[:, :, None], axis=2)[:, :, 0]
