"""A small random model of every family: configuration, weights that anyone can draw again, tokens, expected logits.

`expected/<case>.json` has what `transformers` saved and computed (`make_expected.py` writes it), so that every family
is checked where `transformers` is not installed.
"""

import functools
import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from plum_jax.model.decoder import Decoder

EXPECTED = pathlib.Path(__file__).parent / "expected"

_SIZES = {
    "vocab_size": 29,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,  # large enough to be seen
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
# Keyword arguments of the family's configuration class. Windows are shorter than the sequence, soft caps low enough to
# bend, thetas small enough for twelve positions to turn the slow pairs.
CASES = {
    "llama": {"model_type": "llama", "tie_word_embeddings": False},
    "llama3": {
        "model_type": "llama",
        "tie_word_embeddings": True,
        "head_dim": 8,
        "rope_parameters": {**_LLAMA3, "rope_theta": 50.0, "original_max_position_embeddings": 16},
    },
    "smollm2": {
        "model_type": "llama",
        "tie_word_embeddings": True,
        "hidden_size": 12,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
    },
    "mistral": {"model_type": "mistral", "sliding_window": 4, "head_dim": 8},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": {
        "model_type": "qwen2",
        "tie_word_embeddings": True,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 1,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 6, "tie_word_embeddings": False},
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "head_dim": 6,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 12,
        "norm_topk_prob": False,
    },
    "gemma2": {
        "model_type": "gemma2",
        "head_dim": 6,
        "sliding_window": 4,
        "query_pre_attn_scalar": 9,
        "attn_logit_softcapping": 1.5,
        "final_logit_softcapping": 2.5,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 6,
        "num_hidden_layers": 6,
        "sliding_window": 4,
        "query_pre_attn_scalar": 9,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
            "full_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 50.0},
        },
    },
}
TOKENS = np.array([[1, 5, 9, 28, 3, 3, 17, 22, 8, 14, 2, 11], [1, 7, 7, 26, 19, 4, 12, 6, 25, 10, 21, 13]])


def case_arguments(case):
    return {**_SIZES, **CASES[case]}


def random_tensor(name, shape):
    """Drawn from the tensor's name by a generator whose stream NumPy keeps; norms are not ones, biases not zeros."""
    draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) == 1:
        return (0.7 + 0.4 * draw if "norm" in name else 0.4 * draw).astype(np.float32)
    scale = 1.0 if "embed" in name else 1.5 * shape[-1] ** -0.5
    return (scale * draw).astype(np.float32)


@functools.cache
def expected(case):
    """`config`, `shapes` of the tensors by name, and `logits` [2, 12, V]."""
    read = json.loads((EXPECTED / f"{case}.json").read_text())
    read["logits"] = np.asarray(read["logits"], np.float32)
    return read


def case_tensors(case):
    return {name: random_tensor(name, shape) for name, shape in expected(case)["shapes"].items()}


def write_case(case, directory, tensors=None, **fields):
    """The directory that `transformers` would have saved; `fields` replace those of its config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({**expected(case)["config"], **fields}))
    save_file(tensors or case_tensors(case), directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def our_logits(config, params, tokens=TOKENS):
    """float32 `[B, T, V]` of our decoder."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((tokens.shape[1],) * 2, bool)), (*tokens.shape, tokens.shape[1]))
    decoder = Decoder(config, params["embedding"].shape[0])
    out = jax.jit(decoder.apply)({"params": params}, jnp.asarray(tokens), positions, mask)
    return np.asarray(out[0])
